package ratelimit

import (
	"encoding/json"
	"fmt"
	"time"
)

// policyJSON is how a stored policy is written down.
type policyJSON struct {
	Name          string         `json:"name"`
	Limit         int64          `json:"limit,omitempty"`
	Period        string         `json:"period,omitempty"`
	Burst         int64          `json:"burst,omitempty"`
	Algorithm     string         `json:"algorithm,omitempty"`
	Align         string         `json:"align,omitempty"`
	Timezone      string         `json:"timezone,omitempty"`
	Synchronous   bool           `json:"synchronous,omitempty"`
	NoLeases      bool           `json:"no_leases,omitempty"`
	Shadow        bool           `json:"shadow,omitempty"`
	Unlimited     bool           `json:"unlimited,omitempty"`
	OnUnavailable string         `json:"on_unavailable,omitempty"`
	Overrides     []overrideJSON `json:"overrides,omitempty"`
}

type overrideJSON struct {
	Key       string `json:"key"`
	Times     int64  `json:"times,omitempty"`
	Limit     int64  `json:"limit,omitempty"`
	Burst     int64  `json:"burst,omitempty"`
	Unlimited bool   `json:"unlimited,omitempty"`
}

// MarshalJSON writes s in the form that [ParsePolicy] reads.
func (s StoredPolicy) MarshalJSON() ([]byte, error) {
	p := &s.Policy
	j := policyJSON{
		Name: p.Name, Limit: p.Limit, Burst: p.Burst, Align: p.Align.String(),
		Synchronous: p.Synchronous, NoLeases: p.NoLeases, Shadow: p.Shadow, Unlimited: p.Unlimited,
		OnUnavailable: p.OnUnavailable.String(),
	}
	if p.Period != 0 {
		j.Period = p.Period.String()
	}
	if p.Limit != 0 {
		j.Algorithm = p.Algorithm.String()
	}
	if p.Location != nil {
		j.Timezone = p.Location.String()
	}
	for _, o := range s.Overrides {
		j.Overrides = append(j.Overrides, overrideJSON(o))
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads what MarshalJSON wrote, and refuses what is out of
// bounds.
func (s *StoredPolicy) UnmarshalJSON(b []byte) error {
	got, err := decodePolicy(string(b))
	if err == nil {
		*s = got
	}
	return err
}

func encodePolicy(s StoredPolicy) string {
	b, err := s.MarshalJSON()
	if err != nil {
		panic(err) // strings, integers and booleans only
	}
	return string(b)
}

// decodePolicy reads what encodePolicy wrote, perhaps by a later version: fields
// that this one does not know are passed over.
func decodePolicy(body string) (StoredPolicy, error) {
	var j policyJSON
	if err := json.Unmarshal([]byte(body), &j); err != nil {
		return StoredPolicy{}, fmt.Errorf("ratelimit: policy: %w", err)
	}
	s := StoredPolicy{Policy: Policy{
		Name: j.Name, Limit: j.Limit, Burst: j.Burst,
		Synchronous: j.Synchronous, NoLeases: j.NoLeases, Shadow: j.Shadow, Unlimited: j.Unlimited,
	}}
	p := &s.Policy
	var errs [5]error
	p.Algorithm, errs[0] = ParseAlgorithm(j.Algorithm)
	p.Align, errs[1] = ParseAlignment(j.Align)
	p.OnUnavailable, errs[2] = ParseFailureMode(j.OnUnavailable)
	if j.Period != "" {
		if p.Period, errs[3] = time.ParseDuration(j.Period); errs[3] != nil {
			errs[3] = badField("period", "must be a duration such as 60s or 1h, is %.40q", j.Period)
		}
	}
	if j.Timezone != "" {
		p.Location, errs[4] = parseLocation(j.Timezone)
	}
	for _, err := range errs {
		if err != nil {
			return StoredPolicy{}, err
		}
	}
	for _, o := range j.Overrides {
		s.Overrides = append(s.Overrides, Override(o))
	}
	return s, s.Validate()
}
