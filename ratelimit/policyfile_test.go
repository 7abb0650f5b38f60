package ratelimit

import (
	"encoding/json"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestParsePolicies(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	got, err := ParsePolicies([]byte(`
# limits of the API
policies:
  - name: key
    limit: 5000
    period: 1h
    burst: 6000
    overrides:
      - {key: customer-42, times: 10}
      - {key: customer-43, limit: 100, burst: 5}
      - {key: internal, unlimited: true}
  - name: mails
    limit: 100
    algorithm: fixed-window
    align: day
    timezone: Europe/Berlin
    synchronous: true
  - name: exports
    limit: 3
    period: 30s
    algorithm: concurrency
    on_unavailable: closed
  - name: trial
    shadow: true
  - {name: off, unlimited: true}
`))
	want := []StoredPolicy{
		{Policy: Policy{Name: "key", Limit: 5000, Period: time.Hour, Burst: 6000}, Overrides: []Override{
			{Key: "customer-42", Times: 10}, {Key: "customer-43", Limit: 100, Burst: 5}, {Key: "internal", Unlimited: true},
		}},
		{Policy: Policy{Name: "mails", Limit: 100, Algorithm: FixedWindow, Align: Day, Location: berlin, Synchronous: true}},
		{Policy: Policy{Name: "exports", Limit: 3, Period: 30 * time.Second, Algorithm: Concurrency, OnUnavailable: FailClosed}},
		{Policy: Policy{Name: "trial", Shadow: true}},
		{Policy: Policy{Name: "off", Unlimited: true}},
	}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v\n got %+v\nwant %+v", err, got, want)
	}
	for _, empty := range []string{"", "\n", "# nothing\n", "policies:\n", "policies: []", "---\n"} {
		if got, err := ParsePolicies([]byte(empty)); err != nil || len(got) != 0 {
			t.Errorf("%q: %+v, %v", empty, got, err)
		}
	}
}

func TestParsePoliciesNamesTheLine(t *testing.T) {
	for want, file := range map[string]string{
		"line 4: limit: must be an integer, is \"0.5\"":                   "policies:\n  - name: a\n    period: 1m\n    limit: 0.5\n",
		"line 3: limit: must be 1 to 9007199254740992, is -4":             "policies:\n  - name: a\n    limit: -4\n    period: 1m\n",
		"line 3: period: must be a duration such as 60s or 1h, is \"60\"": "policies:\n  - name: a\n    period: 60\n    limit: 1\n",
		"line 2: period: must be 1ms to":                                  "policies:\n  - name: a\n    limit: 1\n",
		"line 3: limits: is not a field of a policy":                      "policies:\n  - name: a\n    limits: 1\n",
		"line 1: policy: is not a field of the file":                      "policy: []\n",
		"line 4: limit: is there twice":                                   "policies:\n  - name: a\n    limit: 1\n    limit: 2\n",
		"line 3: name: a is on line 2 already":                            "policies:\n  - {name: a, shadow: true}\n  - {name: a, shadow: true}\n",
		"line 2: policy: must be 1 to 64 letters":                         "policies:\n  - name: a b\n    shadow: true\n",
		"line 2: policy: must be a mapping":                               "policies:\n  - a\n",
		"line 1: policies: must be a list":                                "policies: 7\n",
		"line 1: the file: must be a mapping":                             "- a\n",
		"line 5: algorithm: must be token-bucket":                         "policies:\n  - name: a\n    limit: 1\n    period: 1s\n    algorithm: magic\n",
		"line 4: align: must be second":                                   "policies:\n  - name: a\n    limit: 1\n    align: fortnight\n",
		"line 4: timezone: must be a zone":                                "policies:\n  - name: a\n    limit: 1\n    timezone: Mars/Olympus\n",
		"line 3: shadow: must be true or false, is \"perhaps\"":           "policies:\n  - name: a\n    shadow: perhaps\n",
		"line 3: on_unavailable: must be open":                            "policies:\n  - name: a\n    on_unavailable: shut\n",
		"line 4: overrides: for \"k\" must say one of times":              "policies:\n  - name: a\n    overrides:\n      - {key: k}\n",
		"line 4: times: must be at least 1":                               "policies:\n  - name: a\n    overrides:\n      - {key: k, times: 0}\n",
		"line 4: factor: is not a field of an override":                   "policies:\n  - name: a\n    overrides:\n      - {key: k, factor: 2}\n",
		"line 4: overrides: has the key \"k\" twice":                      "policies:\n  - name: a\n    overrides:\n      - {key: k, times: 2}\n      - {key: k, times: 3}\n",
		"line 3: burst: needs a limit":                                    "policies:\n  - name: a\n    burst: 5\n",
		"line 3: limit: must not be an alias":                             "policies:\n  - {name: a, burst: &n 5,\n    limit: *n, period: 1s}\n",
		"line 3: policy: must be a mapping":                               "policies:\n  - &a {name: a, shadow: true}\n  - *a\n",
	} {
		got, err := ParsePolicies([]byte(file))
		var at *FileError
		if got != nil || !errors.As(err, &at) || !strings.HasPrefix(err.Error(), "ratelimit: "+want) {
			t.Errorf("want %q:\n got %v", want, err)
		}
	}
	for _, file := range []string{"policies: [", "\t-", "a: b: c", "policies: []\n---\npolicies: []\n", strings.Repeat("[", 100_000), strings.Repeat("x", MaxPolicyFile+1)} {
		if _, err := ParsePolicies([]byte(file)); err == nil {
			t.Errorf("accepted %.20q", file)
		}
	}
}

func TestParsePolicyOfABody(t *testing.T) {
	got, err := ParsePolicy("key", []byte(`{"limit": 10, "period": "60s", "overrides": [{"key": "k", "times": 2}]}`))
	want := StoredPolicy{Policy: PerMinute("key", 10), Overrides: []Override{{Key: "k", Times: 2}}}
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%+v, %v", got, err)
	}
	if _, err := ParsePolicy("key", []byte(`{"name": "other", "limit": 10, "period": "60s"}`)); err == nil {
		t.Error("accepted another name")
	}
	for _, body := range []string{"", "null", "[]", "7", `{"limit": "10", "period": "60s"}`} {
		if _, err := ParsePolicy("key", []byte(body)); err == nil {
			t.Errorf("accepted %q", body)
		}
	}
}

func TestStoredPolicyJSON(t *testing.T) {
	for _, s := range []StoredPolicy{
		{Policy: PerMinute("a", 5)},
		{Policy: Policy{Name: "b", Shadow: true}, Overrides: []Override{{Key: "ü/\"\n", Limit: 7}}},
		{Policy: Calendar("c", 5, Month, zone(t, "Asia/Tokyo"))},
		{Policy: Policy{Name: "d", Limit: MaxLimit, Period: MaxPeriod, Algorithm: SlidingWindow, OnUnavailable: FailLocal, Synchronous: true}},
	} {
		b, err := json.Marshal(s)
		if err != nil {
			t.Fatal(err)
		}
		var got StoredPolicy
		if err := json.Unmarshal(b, &got); err != nil || !reflect.DeepEqual(got, s) {
			t.Errorf("%s:\n got %+v, %v\nwant %+v", b, got, err, s)
		}
		if again, err := ParsePolicy("", b); err != nil || !reflect.DeepEqual(again, s) {
			t.Errorf("%s as a file:\n got %+v, %v\nwant %+v", b, again, err, s)
		}
	}
	var got StoredPolicy
	if err := json.Unmarshal([]byte(`{"name":"a","limit":5,"period":"1m","later":{"field":1}}`), &got); err != nil {
		t.Errorf("a later version's field is not passed over: %v", err)
	}
	if err := json.Unmarshal([]byte(`{"name":"a","limit":-5,"period":"1m"}`), &got); err == nil {
		t.Error("accepted a limit below 1")
	}
}

func FuzzParsePolicies(f *testing.F) {
	f.Add("policies:\n  - {name: a, limit: 1, period: 1s, overrides: [{key: k, times: 3}]}\n")
	f.Add("policies:\n  - name: b\n    limit: 9007199254740992\n    algorithm: fixed-window\n    align: month\n    timezone: UTC\n")
	f.Add("a: &a [*a, *a]\npolicies: *a\n")
	f.Add("{policies: [{name: c, shadow: yes, on_unavailable: local}]}")
	f.Fuzz(func(t *testing.T, file string) {
		all, err := ParsePolicies([]byte(file))
		if err != nil {
			return
		}
		for _, s := range all {
			if err := s.Validate(); err != nil {
				t.Fatalf("%q gives a policy that is not valid: %v", file, err)
			}
			again, err := decodePolicy(encodePolicy(s))
			if err != nil || !reflect.DeepEqual(again, s) {
				t.Fatalf("%+v is stored as %+v, %v", s, again, err)
			}
		}
	})
}
