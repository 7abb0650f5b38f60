package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
)

// keysCommand administers API keys by way of a running member.
type keysCommand struct {
	Create  keysCreate  `cmd:"" help:"Make a key and print it: this is the only time that it is shown."`
	List    keysList    `cmd:"" help:"List keys, without the keys themselves."`
	Show    keysShow    `cmd:"" help:"Show what is known of one key."`
	Disable keysDisable `cmd:"" help:"Have a key refused by every member from now on."`
	Enable  keysEnable  `cmd:"" help:"Undo disable."`
	Delete  keysDelete  `cmd:"" help:"Remove a key for good."`
	Rotate  keysRotate  `cmd:"" help:"Make a new key in place of one, which stays valid for --grace."`
}

// adminFlags are what commands that change something take.
type adminFlags struct {
	clientFlags
	AdminTokenFile string `placeholder:"FILE" help:"File whose first line is the admin token to send; --api-token-file unless given."`
	JSON           bool   `name:"json" help:"Print the member's answer as JSON."`
}

// connect is clientFlags', with the admin token.
func (f *adminFlags) connect() (*client, error) {
	c, err := f.clientFlags.connect()
	if err != nil || f.AdminTokenFile == "" {
		return c, err
	}
	tokens, err := readSecrets("--admin-token-file", f.AdminTokenFile, 1)
	if err != nil {
		return nil, err
	}
	c.token = tokens[0]
	return c, nil
}

// ask sends a request and decodes the answer into view, or passes it on where
// --json was given; it reports whether view is to be shown.
func (f *adminFlags) ask(ctx context.Context, env *environment, method, path string, body, view any, flags map[string]string) (show bool, err error) {
	member, err := f.connect()
	if err != nil {
		return false, err
	}
	var text []byte
	if body != nil {
		if text, err = json.Marshal(body); err != nil {
			return false, err
		}
	}
	answer, _, err := member.do(ctx, method, path, text, http.StatusOK, http.StatusCreated)
	if err != nil {
		return false, usageOf(err, flags)
	}
	if f.JSON {
		fmt.Fprintf(env.stdout, "%s\n", trimSpace(answer))
		return false, nil
	}
	if err := json.Unmarshal(answer, view); err != nil {
		return false, fmt.Errorf("%s: the answer can't be read: %w", f.HTTP, err)
	}
	return true, nil
}

func keyPath(id string) string { return "/v1/auth/keys/" + url.PathEscape(id) }

// keyID is the argument of commands about one key.
type keyID struct {
	ID string `arg:"" name:"id" help:"The key's ID, as list and create show it; never the key itself."`
}

type keysCreate struct {
	Project   string            `required:"" placeholder:"NAME" help:"Whom the key is for, up to 128 bytes."`
	Name      string            `placeholder:"TEXT" help:"What people call the key."`
	Scope     []string          `placeholder:"SCOPE" help:"What it may be used for; may be given several times."`
	Metadata  map[string]string `placeholder:"NAME=VALUE" help:"What else a principal carries; may be given several times." mapsep:"none"`
	Limit     []string          `placeholder:"POLICY=N/PERIOD" help:"A limit of its own for a policy, as in api=5000/1h; may be given several times."`
	ExpiresIn time.Duration     `placeholder:"D" help:"How long it is valid; for ever unless given."`
	Test      bool              `help:"Make a key for trials: pl_test_… instead of pl_live_…."`
	adminFlags
}

var createFlags = map[string]string{
	"project": "--project", "name": "--name", "scopes": "--scope", "metadata": "--metadata", "limits": "--limit",
	"expires_in": "--expires-in", "expires_at": "--expires-in",
}

// keyLimit is a limit as the API takes it.
type keyLimit struct {
	Limit  int64  `json:"limit"`
	Period string `json:"period"`
}

// Run makes the key.
func (c *keysCreate) Run(ctx context.Context, env *environment) error {
	body := map[string]any{"project": c.Project}
	if c.Name != "" {
		body["name"] = c.Name
	}
	if len(c.Scope) > 0 {
		body["scopes"] = c.Scope
	}
	if len(c.Metadata) > 0 {
		body["metadata"] = c.Metadata
	}
	if c.ExpiresIn != 0 {
		body["expires_in"] = c.ExpiresIn.String()
	}
	if c.Test {
		body["environment"] = "test"
	}
	limits := map[string]keyLimit{}
	for _, text := range c.Limit {
		policy, limit, err := parseKeyLimit(text)
		if err != nil {
			return err
		}
		limits[policy] = limit
	}
	if len(limits) > 0 {
		body["limits"] = limits
	}
	var issued issuedView
	show, err := c.ask(ctx, env, http.MethodPost, "/v1/auth/keys", body, &issued, createFlags)
	if show {
		fmt.Fprintf(env.stdout, "id   %s\nkey  %s\n", issued.ID, issued.Key)
	}
	return err
}

func parseKeyLimit(text string) (policy string, l keyLimit, err error) {
	policy, rest, named := strings.Cut(text, "=")
	number, period, divided := strings.Cut(rest, "/")
	if !named || !divided || policy == "" || period == "" {
		return "", l, usagef("--limit: must be POLICY=N/PERIOD, as in api=5000/1h, got %q", text)
	}
	if l.Limit, err = strconv.ParseInt(number, 10, 64); err != nil || l.Limit < 1 {
		return "", l, usagef("--limit: must have a whole number from 1 before the slash, got %q", text)
	}
	l.Period = period
	return policy, l, nil
}

type keysList struct {
	Project string `placeholder:"NAME" help:"Only keys of that project."`
	Limit   int    `default:"100" placeholder:"N" help:"How many at most, from 1 to 1000."`
	After   string `placeholder:"ID" help:"Begin after this key."`
	adminFlags
}

// Run prints a page as a table.
func (c *keysList) Run(ctx context.Context, env *environment) error {
	query := url.Values{"limit": {strconv.Itoa(c.Limit)}}
	if c.Project != "" {
		query.Set("project", c.Project)
	}
	if c.After != "" {
		query.Set("after", c.After)
	}
	var page pageView
	show, err := c.ask(ctx, env, http.MethodGet, "/v1/auth/keys?"+query.Encode(), nil, &page,
		map[string]string{"limit": "--limit", "project": "--project", "after": "--after"})
	if !show {
		return err
	}
	table := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ID\tPREFIX\tPROJECT\tNAME\tSTATE\tEXPIRES\tLAST USED")
	now := time.Now()
	for i := range page.Keys {
		k := &page.Keys[i]
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%s\t%s\n", k.ID, k.Prefix, k.Project, dash(k.Name), k.state(now), day(k.Expires), day(k.LastUsed))
	}
	if err := table.Flush(); err != nil {
		return err
	}
	if page.Next != "" {
		fmt.Fprintf(env.stdout, "more with --after %s\n", page.Next)
	}
	return nil
}

// state is the key's in a word.
func (k *keyView) state(now time.Time) string {
	switch {
	case k.Disabled:
		return "disabled"
	case k.Expires != nil && !now.Before(*k.Expires):
		return "expired"
	}
	return "enabled"
}

func day(t *time.Time) string {
	if t == nil {
		return "-"
	}
	return t.UTC().Format(time.RFC3339)
}

type keysShow struct {
	keyID
	adminFlags
}

// Run prints a key, a line a field.
func (c *keysShow) Run(ctx context.Context, env *environment) error {
	var k keyView
	show, err := c.ask(ctx, env, http.MethodGet, keyPath(c.ID), nil, &k, nil)
	if !show {
		return err
	}
	table := tabwriter.NewWriter(env.stdout, 0, 0, 2, ' ', 0)
	metadata, limits := "", ""
	for _, name := range slices.Sorted(maps.Keys(k.Metadata)) {
		metadata += " " + name + "=" + k.Metadata[name]
	}
	for _, policy := range slices.Sorted(maps.Keys(k.Limits)) {
		l := k.Limits[policy]
		limits += fmt.Sprintf(" %s=%d/%s", policy, l.Limit, milliseconds(l.PeriodMS))
	}
	for _, line := range [][2]string{
		{"id", k.ID}, {"prefix", k.Prefix}, {"project", k.Project}, {"name", k.Name}, {"state", k.state(time.Now())},
		{"scopes", strings.Join(k.Scopes, " ")}, {"metadata", strings.TrimSpace(metadata)}, {"limits", strings.TrimSpace(limits)},
		{"created", day(&k.Created)}, {"updated", day(&k.Updated)}, {"expires", day(k.Expires)}, {"last used", day(k.LastUsed)},
		{"replaces", k.Replaces}, {"replaced by", k.ReplacedBy},
	} {
		fmt.Fprintf(table, "%s\t%s\n", line[0], dash(line[1]))
	}
	return table.Flush()
}

type (
	keysDisable struct{ keyChange }
	keysEnable  struct{ keyChange }
	keysDelete  struct{ keyChange }
)

// Run disables the key.
func (c *keysDisable) Run(ctx context.Context, env *environment) error {
	return c.change(ctx, env, http.MethodPost, "/disable", "disabled")
}

// Run enables the key.
func (c *keysEnable) Run(ctx context.Context, env *environment) error {
	return c.change(ctx, env, http.MethodPost, "/enable", "enabled")
}

// Run deletes the key.
func (c *keysDelete) Run(ctx context.Context, env *environment) error {
	return c.change(ctx, env, http.MethodDelete, "", "deleted")
}

// keyChange is a change that takes nothing but the key's ID.
type keyChange struct {
	keyID
	adminFlags
}

func (c *keyChange) change(ctx context.Context, env *environment, method, action, done string) error {
	var answer receiptAnswer
	show, err := c.ask(ctx, env, method, keyPath(c.ID)+action, nil, &answer, nil)
	if show {
		sayReceipt(env.stdout, done, &answer.Receipt)
	}
	return err
}

// sayReceipt tells how far a change came, and what that means for the rest.
func sayReceipt(w io.Writer, done string, r *receiptView) {
	fmt.Fprintf(w, "%s: %d of %d members know, after %s\n", done, r.Reached, r.Members, milliseconds(r.TookMS))
	if len(r.Unreached) > 0 {
		fmt.Fprintf(w, "not reached, and asking the key store before they answer for it: %s\n", strings.Join(r.Unreached, ", "))
	}
}

type keysRotate struct {
	keyID
	Grace time.Duration `default:"0s" placeholder:"D" help:"How long the old key stays valid, up to 2160h."`
	adminFlags
}

// Run rotates the key.
func (c *keysRotate) Run(ctx context.Context, env *environment) error {
	var issued issuedView
	show, err := c.ask(ctx, env, http.MethodPost, keyPath(c.ID)+"/rotate", map[string]any{"grace": c.Grace.String()}, &issued,
		map[string]string{"grace": "--grace"})
	if !show {
		return err
	}
	fmt.Fprintf(env.stdout, "id   %s\nkey  %s\n", issued.ID, issued.Key)
	if issued.Receipt != nil {
		sayReceipt(env.stdout, "rotated", issued.Receipt)
	}
	if issued.Announced != nil && !*issued.Announced {
		fmt.Fprintln(env.stdout, "not announced: members may accept the old key for up to a second after its end")
	}
	return nil
}
