package main

import (
	"bytes"
	"encoding/json"
	"log/slog"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/peerlimit/peerlimit/auth"
)

// testKeys is the HTTP API for keys of this process alone, and what it logs.
func testKeys(t *testing.T, access *tokens) (*handler, *bytes.Buffer) {
	t.Helper()
	log := new(bytes.Buffer)
	keys, err := auth.New(auth.Config{Store: auth.NewMemory()})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, keys.Close()) })
	h := newHandler(access, testProbes(new(probes)))
	h.open((&authAPI{keys: keys, log: slog.New(slog.NewTextHandler(log, nil))}).routes())
	return h, log
}

func decode[T any](t *testing.T, a answer) (v T) {
	t.Helper()
	require.NoError(t, json.Unmarshal([]byte(a.body), &v), a.body)
	return v
}

func createKey(t *testing.T, h *handler, body string) issuedView {
	t.Helper()
	a := ask(h, "POST", "/v1/auth/keys", body)
	require.Equal(t, 201, a.status, a.body)
	assert.Equal(t, "no-store", a.header.Get("Cache-Control"))
	return decode[issuedView](t, a)
}

func verdictOf(t *testing.T, h *handler, key string) (status int, v verdictView) {
	t.Helper()
	a := ask(h, "POST", "/v1/auth/verify", `{"key":"`+key+`"}`)
	return a.status, decode[verdictView](t, a)
}

func TestKeyFromItsMakingToItsEnd(t *testing.T) {
	h, _ := testKeys(t, &tokens{})
	issued := createKey(t, h, `{"project":"shop","name":"web","scopes":["read"],"metadata":{"plan":"pro"},
		"expires_in":"1h","limits":{"api":{"limit":5,"period":"1m"}}}`)
	assert.True(t, strings.HasPrefix(issued.Key, "pl_live_"))
	assert.True(t, strings.HasPrefix(issued.ID, "key_"))

	a := ask(h, "POST", "/v1/auth/verify", `{"key":"`+issued.Key+`"}`)
	require.Equal(t, 200, a.status, a.body)
	v := decode[verdictView](t, a)
	assert.Equal(t, "VALID", v.Verdict)
	assert.Equal(t, issued.ID, v.ID)
	assert.False(t, v.Cached)
	assert.Equal(t, "shop", v.Principal.Project)
	assert.Equal(t, []string{"read"}, v.Principal.Scopes)
	assert.Equal(t, map[string]string{"plan": "pro"}, v.Principal.Metadata)
	assert.Equal(t, map[string]limitView{"api": {Limit: 5, PeriodMS: 60_000}}, v.Principal.Limits)
	assert.WithinDuration(t, time.Now().Add(time.Hour), *v.Principal.Expires, time.Minute)
	_, v = verdictOf(t, h, issued.Key)
	assert.True(t, v.Cached)

	change := func(method, path string) {
		t.Helper()
		a := ask(h, method, "/v1/auth/keys/"+issued.ID+path, "")
		require.Equal(t, 200, a.status, a.body)
		r := decode[receiptAnswer](t, a).Receipt
		assert.Equal(t, 1, r.Reached)
		assert.Equal(t, 1, r.Members)
		assert.Contains(t, a.body, `"took_ms":`)
	}
	want := func(status int, verdict string) {
		t.Helper()
		a := ask(h, "POST", "/v1/auth/verify", `{"key":"`+issued.Key+`"}`)
		assert.Equal(t, status, a.status)
		assert.Equal(t, verdict, decode[verdictView](t, a).Verdict)
		if status != 200 {
			assert.NotEmpty(t, a.header.Get("WWW-Authenticate"))
			a.problem(t)
		}
		assert.NotContains(t, a.body, issued.Key)
	}
	change("POST", "/disable")
	want(401, "DISABLED")
	change("POST", "/enable")
	want(200, "VALID")

	a = ask(h, "PATCH", "/v1/auth/keys/"+issued.ID, `{"name":"new","scopes":[],"expires_in":"0s"}`)
	require.Equal(t, 200, a.status, a.body)
	k := decode[keyView](t, ask(h, "GET", "/v1/auth/keys/"+issued.ID, ""))
	assert.Equal(t, "new", k.Name)
	assert.Empty(t, k.Scopes)
	assert.Nil(t, k.Expires)
	assert.Equal(t, map[string]string{"plan": "pro"}, k.Metadata, "left alone")

	a = ask(h, "POST", "/v1/auth/keys/"+issued.ID+"/rotate", `{"grace":"1h"}`)
	require.Equal(t, 200, a.status, a.body)
	next := decode[issuedView](t, a)
	assert.Equal(t, issued.ID, next.Replaces)
	assert.NotEqual(t, issued.Key, next.Key)
	want(200, "VALID")
	a = ask(h, "POST", "/v1/auth/keys/"+next.ID+"/rotate", "")
	require.Equal(t, 200, a.status, a.body)
	_, v = verdictOf(t, h, next.Key)
	assert.Equal(t, "EXPIRED", v.Verdict)

	change("DELETE", "")
	want(401, "NOT_FOUND")
	assert.Equal(t, 404, ask(h, "DELETE", "/v1/auth/keys/"+issued.ID, "").status)

	var history struct{ Records []recordView }
	a = ask(h, "GET", "/v1/auth/keys/"+issued.ID+"/history", "")
	require.NoError(t, json.Unmarshal([]byte(a.body), &history))
	var actions []string
	for _, r := range history.Records {
		actions = append(actions, r.Action)
		assert.Contains(t, r.Actor, "http from ")
	}
	assert.Equal(t, []string{"delete", "rotate", "update", "enable", "disable", "create"}, actions)
}

func TestKeysAreListedWithoutThemselves(t *testing.T) {
	h, log := testKeys(t, &tokens{})
	var keys []string
	for _, project := range []string{"a", "b", "a", "a"} {
		keys = append(keys, createKey(t, h, `{"project":"`+project+`"}`).Key)
	}
	a := ask(h, "GET", "/v1/auth/keys?project=a&limit=2", "")
	page := decode[pageView](t, a)
	require.Len(t, page.Keys, 2)
	more := decode[pageView](t, ask(h, "GET", "/v1/auth/keys?project=a&limit=2&after="+page.Next, ""))
	assert.Len(t, more.Keys, 1)
	assert.Empty(t, more.Next)
	for _, key := range keys {
		assert.NotContains(t, a.body, key)
		assert.NotContains(t, log.String(), key)
	}
}

func TestKeysMadeElsewhereAreTakenIn(t *testing.T) {
	h, _ := testKeys(t, &tokens{})
	const foreign = "sk-elsewhere-0123456789abcdef"
	_, v := verdictOf(t, h, foreign)
	require.Equal(t, "NOT_FOUND", v.Verdict)
	a := ask(h, "POST", "/v1/auth/keys/import", `{"project":"p","sha256":"`+auth.DigestOf(foreign).Hex()+`"}`)
	require.Equal(t, 201, a.status, a.body)
	assert.Equal(t, 1, decode[keyView](t, a).Receipt.Reached)
	_, v = verdictOf(t, h, foreign)
	assert.Equal(t, "VALID", v.Verdict)
	a = ask(h, "POST", "/v1/auth/keys/import", `{"project":"p","key":"`+foreign+`"}`)
	assert.Equal(t, 409, a.status)
	assert.NotContains(t, a.body, foreign)
}

func TestBadKeyRequestsNameTheField(t *testing.T) {
	h, _ := testKeys(t, &tokens{})
	for _, c := range []struct {
		method, path, body, field string
	}{
		{"POST", "", `{}`, "project"},
		{"POST", "", `{"project":""}`, "project"},
		{"POST", "", `{"project":"p","expires_in":"0s"}`, "expires_in"},
		{"POST", "", `{"project":"p","expires_in":60}`, "expires_in"},
		{"POST", "", `{"project":"p","scopes":["a b"]}`, "scopes[0]"},
		{"POST", "", `{"project":"p","limits":{"api":{"limit":0,"period":"1m"}}}`, "limits.api.limit"},
		{"POST", "", `{"project":"p","limits":{"api":{"limit":1}}}`, "limits.api.period"},
		{"POST", "", `{"project":"p","environment":"staging"}`, "environment"},
		{"POST", "", `{"project":"p","key":"x"}`, "key"},
		{"POST", "/import", `{"project":"p"}`, "sha256"},
		{"POST", "/import", `{"project":"p","sha256":"12"}`, "sha256"},
		{"POST", "/import", `{"project":"p","key":"short"}`, "key"},
		{"PATCH", "/key_x", `{}`, "patch"},
		{"PATCH", "/key_x", `{"project":"p"}`, "project"},
		{"POST", "/key_x/rotate", `{"grace":"-1s"}`, "grace"},
		{"POST", "/key_x/rotate", `{"grace":"2161h"}`, "grace"},
		{"GET", "?limit=0", ``, "limit"},
		{"GET", "?limit=1001", ``, "limit"},
		{"GET", "?nonsense=1", ``, "nonsense"},
	} {
		a := ask(h, c.method, "/v1/auth/keys"+c.path, c.body)
		if assert.Equal(t, 400, a.status, "%s %s: %s", c.path, c.body, a.body) {
			assert.Equal(t, c.field, a.problem(t).Errors[0].Field, "%s %s", c.path, c.body)
		}
	}
	for _, path := range []string{"POST /disable", "POST /enable", "DELETE ", "POST /rotate", "GET "} {
		method, path, _ := strings.Cut(path, " ")
		assert.Equal(t, 404, ask(h, method, "/v1/auth/keys/key_x"+path, "").status)
	}
	a := ask(h, "POST", "/v1/auth/verify", `{}`)
	assert.Equal(t, "key", a.problem(t).Errors[0].Field)
	status, v := verdictOf(t, h, "pl_live_nonsense")
	assert.Equal(t, 401, status)
	assert.Equal(t, "MALFORMED", v.Verdict)
}

func TestWhoMayAdministerKeys(t *testing.T) {
	user, admin := "Bearer the-token-of-a-user", "Bearer the-token-of-an-admin"
	h, _ := testKeys(t, &tokens{users: hashTokens([]string{user[7:]}), admins: hashTokens([]string{admin[7:]})})
	for _, c := range []struct {
		method, path, body   string
		user, admin, without int
	}{
		{"POST", "/v1/auth/verify", `{"key":"unknown-key-unknown-key"}`, 401, 401, 401},
		{"GET", "/v1/auth/cache", "", 200, 200, 401},
		{"POST", "/v1/auth/cache/clear", `{"key":"unknown-key-unknown-key"}`, 403, 204, 401},
		{"POST", "/v1/auth/keys", `{"project":"p"}`, 403, 201, 401},
		{"GET", "/v1/auth/keys", "", 403, 200, 401},
		{"GET", "/v1/auth/keys/key_x", "", 403, 404, 401},
		{"PATCH", "/v1/auth/keys/key_x", `{"name":"n"}`, 403, 404, 401},
		{"POST", "/v1/auth/keys/key_x/disable", "", 403, 404, 401},
		{"DELETE", "/v1/auth/keys/key_x", "", 403, 404, 401},
	} {
		assert.Equal(t, c.user, ask(h, c.method, c.path, c.body, "Authorization", user).status, c.path)
		assert.Equal(t, c.admin, ask(h, c.method, c.path, c.body, "Authorization", admin).status, c.path)
		assert.Equal(t, c.without, ask(h, c.method, c.path, c.body).status, c.path)
	}
}

func TestKeysByCommandLine(t *testing.T) {
	h, _ := testKeys(t, &tokens{admins: hashTokens([]string{"an-admin-token-01"})})
	url := testServer(t, h)
	token := write(t, "an-admin-token-01\n")
	keys := func(args ...string) (int, string, string) {
		return runNode(t, append(append([]string{"keys"}, args...), "--http", url, "--admin-token-file", token)...)
	}
	code, stdout, stderr := keys("create", "--project", "shop", "--scope", "read", "--scope", "write", "--metadata", "plan=pro",
		"--limit", "api=50/1m", "--expires-in", "24h", "--json")
	require.Equal(t, exitDone, code, stderr)
	var issued issuedView
	require.NoError(t, json.Unmarshal([]byte(stdout), &issued))
	code, stdout, _ = keys("show", issued.ID)
	assert.Equal(t, exitDone, code)
	for _, want := range []string{issued.ID, "shop", "enabled", "read write", "plan=pro", "api=50/1m0s"} {
		assert.Contains(t, stdout, want)
	}
	assert.NotContains(t, stdout, issued.Key)
	code, stdout, stderr = keys("disable", issued.ID)
	assert.Equal(t, exitDone, code, stderr)
	assert.Contains(t, stdout, "disabled: 1 of 1 members know")
	code, stdout, _ = keys("list", "--project", "shop")
	assert.Equal(t, exitDone, code)
	assert.Contains(t, stdout, "disabled")
	code, _, _ = keys("enable", issued.ID)
	assert.Equal(t, exitDone, code)
	code, stdout, stderr = keys("rotate", issued.ID, "--grace", "1h")
	assert.Equal(t, exitDone, code, stderr)
	assert.Contains(t, stdout, "key  pl_live_")
	code, stdout, _ = keys("create", "--project", "shop", "--test")
	assert.Equal(t, exitDone, code)
	assert.Contains(t, stdout, "key  pl_test_")
	code, _, _ = keys("delete", issued.ID)
	assert.Equal(t, exitDone, code)
	code, _, stderr = keys("delete", issued.ID)
	assert.Equal(t, exitFailed, code)
	assert.Contains(t, stderr, "no key with this ID")

	for args, want := range map[string]string{
		"create":                                   "--project",
		"create --project p --limit api":           "--limit: must be POLICY=N/PERIOD",
		"create --project p --limit api=0/1m":      "--limit: must have a whole number",
		"create --project p --limit api=1/month":   "limits.api.period",
		"create --project p --expires-in 100ms":    "--expires-in",
		"rotate " + issued.ID + " --grace 100000h": "--grace",
		"list --limit 5000":                        "--limit",
		"show":                                     "<id>",
	} {
		code, _, stderr := keys(strings.Fields(args)...)
		assert.Equal(t, exitUsage, code, args)
		assert.Contains(t, stderr, want, args)
		assert.Equal(t, 1, strings.Count(stderr, "\n"), stderr)
	}
}

func TestKeyStoresByFlag(t *testing.T) {
	ctx := t.Context()
	state := t.TempDir()
	t.Setenv("XDG_STATE_HOME", state)
	for _, text := range []string{"", "memory", "sqlite:" + filepath.Join(state, "own.db"), "postgres://u:p@127.0.0.1:1/db"} {
		require.NoError(t, keyStoreFlag(text).check())
		store, err := keyStoreFlag(text).open(ctx, "shop")
		require.NoError(t, err, text)
		assert.NoError(t, store.Close())
	}
	assert.FileExists(t, filepath.Join(state, "peerlimit", "keys-shop.db"))
	assert.FileExists(t, filepath.Join(state, "own.db"))

	t.Setenv("PEERLIMIT_KEY_STORE", "mysql://u:hidden@x/db")
	for _, args := range []string{"serve", "serve --key-store sqlite:", "serve --key-store Memory"} {
		code, _, stderr := runNode(t, strings.Fields(args)...)
		assert.Equal(t, exitUsage, code)
		assert.Contains(t, stderr, "--key-store: ")
		assert.NotContains(t, stderr, "hidden")
	}
	_, err := keyStoreFlag("postgres://u:hidden@127.0.0.1:port/db").open(ctx, "shop")
	require.Error(t, err)
	assert.NotContains(t, err.Error(), "hidden")
	_, err = keyStoreFlag("sqlite:/nonexistent/x.db").open(ctx, "shop")
	assert.ErrorContains(t, err, "--key-store")
}
