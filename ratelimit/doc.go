// Package ratelimit decides how much of something may be used: calls a minute,
// bytes a day, requests in flight.
package ratelimit
