package ratelimit

import "net/http"

// KeyFunc returns the key that a request counts under. An error refuses the
// request: there is no shared key for requests that have none.
type KeyFunc func(*http.Request) (string, error)

// Rule ties a policy to the key that it counts requests under.
type Rule struct {
	Policy Policy
	Key    KeyFunc
}

// By returns the rule that counts requests under key.
func By(policy Policy, key func(*http.Request) (string, error)) Rule {
	return Rule{Policy: policy, Key: key}
}

// Handler limits next by all rules, all or nothing.
func (l *Limiter) Handler(next http.Handler, rules ...Rule) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		checks := make([]Check, len(rules))
		for i, rule := range rules {
			key, err := rule.Key(r)
			if err != nil {
				http.Error(w, "no key", http.StatusBadRequest)
				return
			}
			checks[i] = Check{Policy: rule.Policy, Key: key, Cost: 1}
		}
		all, err := l.AllowAll(r.Context(), checks...)
		if err != nil {
			http.Error(w, "rate limiter", http.StatusInternalServerError)
			return
		}
		if !all.Allowed {
			w.WriteHeader(http.StatusTooManyRequests)
			return
		}
		next.ServeHTTP(w, r)
	})
}
