package main

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"
)

// demoRevocation is what the step with the key found.
type demoRevocation struct {
	Members int   `json:"members"`
	Reached int   `json:"reached"`
	TookMS  int64 `json:"took_ms"`
	// Before and After are each member's verdict on the key.
	Before map[string]string `json:"before"`
	After  map[string]string `json:"after"`
}

// revoke makes an API key, has every member verify it until it is cached there,
// revokes it by way of one member, and shows that each refuses it at once.
func (d *demo) revoke(ctx context.Context) error {
	var issued issuedView
	if err := d.ask(ctx, d.members[0], http.MethodPost, "/v1/auth/keys", map[string]string{"project": "demo"}, &issued); err != nil {
		return err
	}
	d.view.say("   created %s, which starts with %s, by way of %s", issued.ID, issued.Prefix, d.members[0].name)

	found := &demoRevocation{Before: map[string]string{}, After: map[string]string{}}
	d.report.Revocation = found
	for _, m := range d.members {
		var v verdictView
		for until := time.Now().Add(2 * time.Second); !v.Cached; {
			if err := d.verify(ctx, m, issued.Key, &v); err != nil {
				return err
			}
			if v.Verdict != "VALID" {
				return fmt.Errorf("%s: a new key is %s", m.name, v.Verdict)
			}
			if !v.Cached && time.Now().After(until) {
				return fmt.Errorf("%s: does not cache the key", m.name)
			}
		}
		found.Before[m.name] = v.Verdict
	}
	d.view.say("   verified by all, which have it cached:  %s", d.verdicts(found.Before))

	last := d.members[len(d.members)-1]
	var answer receiptAnswer
	if err := d.ask(ctx, last, http.MethodPost, keyPath(issued.ID)+"/disable", nil, &answer); err != nil {
		return err
	}
	r := &answer.Receipt
	found.Members, found.Reached, found.TookMS = r.Members, r.Reached, r.TookMS
	refused := 0
	for _, m := range d.members {
		var v verdictView
		if err := d.verify(ctx, m, issued.Key, &v); err != nil {
			return err
		}
		if found.After[m.name] = v.Verdict; v.Verdict == "DISABLED" {
			refused++
		}
	}
	d.view.say("   revoked by way of %s, %d of %d members told in %d ms:  %s", last.name, r.Reached, r.Members, r.TookMS, d.verdicts(found.After))
	d.view.say("refused by %d of %d members", refused, len(d.members))
	if refused != len(d.members) || r.Reached != r.Members || r.Members != len(d.members) {
		return fmt.Errorf("of %d members %d were reached and %d refuse the key", len(d.members), r.Reached, refused)
	}
	return nil
}

// replaceKilled starts a process in the place of each that was killed.
func (d *demo) replaceKilled(ctx context.Context) error {
	for i, m := range d.members {
		if !m.killed.Load() {
			continue
		}
		again, err := d.startMember(ctx, i)
		if err != nil {
			return err
		}
		d.members[i] = again
		d.view.say("   %s is started again (pid %d)", again.name, again.pid())
	}
	return d.awaitMembers(ctx)
}

func (d *demo) verdicts(by map[string]string) string {
	var parts []string
	for _, m := range d.members {
		parts = append(parts, m.name+" "+by[m.name])
	}
	return strings.Join(parts, ", ")
}

// verify asks m for its verdict on a key. A refusal is an answer too.
func (d *demo) verify(ctx context.Context, m *demoMember, key string, into *verdictView) error {
	return d.ask(ctx, m, http.MethodPost, "/v1/auth/verify", map[string]string{"key": key}, into,
		http.StatusOK, http.StatusUnauthorized)
}

func (d *demo) ask(ctx context.Context, m *demoMember, method, path string, body, into any, wanted ...int) error {
	var text []byte
	if body != nil {
		var err error
		if text, err = json.Marshal(body); err != nil {
			return err
		}
	}
	if wanted == nil {
		wanted = []int{http.StatusOK, http.StatusCreated}
	}
	answer, _, err := m.client.do(ctx, method, path, text, wanted...)
	if err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	if err := json.Unmarshal(answer, into); err != nil {
		return fmt.Errorf("%s: %w", m.name, err)
	}
	return nil
}
