package cache

import (
	"encoding/json"
	"fmt"
)

// Codec turns values into bytes and back. Its methods are called concurrently.
type Codec interface {
	// Encode returns v's bytes, which the cache keeps and never changes.
	Encode(v any) ([]byte, error)
	// Decode reads what Encode wrote into what into points to. It must not
	// change b; what it keeps of it must not be changed either.
	Decode(b []byte, into any) error
}

// JSON is encoding/json.
type JSON struct{}

// Encode implements Codec.
func (JSON) Encode(v any) ([]byte, error) { return json.Marshal(v) }

// Decode implements Codec.
func (JSON) Decode(b []byte, into any) error { return json.Unmarshal(b, into) }

// Raw takes []byte values as they are. Neither the slice given to the cache nor
// one got from it may be changed.
type Raw struct{}

// Encode implements Codec.
func (Raw) Encode(v any) ([]byte, error) {
	b, ok := v.([]byte)
	if !ok {
		return nil, fmt.Errorf("cache: Raw can't encode a %T", v)
	}
	return b, nil
}

// Decode implements Codec.
func (Raw) Decode(b []byte, into any) error {
	p, ok := into.(*[]byte)
	if !ok {
		return fmt.Errorf("cache: Raw can't decode into a %T", into)
	}
	*p = b
	return nil
}

// codecFor is the default codec.
func codecFor[V any]() Codec {
	var v V
	if _, ok := any(v).([]byte); ok {
		return Raw{}
	}
	return JSON{}
}
