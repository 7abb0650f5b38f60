package auth

import (
	"bytes"
	"context"
	"encoding/gob"
	"encoding/json"
	"encoding/xml"
	"errors"
	"fmt"
	"log/slog"
	"reflect"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// However a value is printed, logged or encoded, the key is not in it.
func TestPrintingShowsNoSecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, ms := newCluster(t, 1)
		m := ms[0]
		issued, err := m.Create(t.Context(), Spec{Project: "shop", Name: "n", Metadata: map[string]string{"phone": "555-0123"}})
		if err != nil {
			t.Fatal(err)
		}
		rotated, err := m.Rotate(t.Context(), issued.Key.ID, time.Hour)
		if err != nil {
			t.Fatal(err)
		}
		secrets := []string{issued.Secret.Reveal(), rotated.Secret.Reveal(), "elsewhere-made-0123456789"}
		result := m.verify(t, secrets[0], Valid)
		imported := Import{Spec: Spec{Project: "shop"}, Key: NewSecret(secrets[2])}
		foreign, _, err := m.Import(t.Context(), imported)
		if err != nil {
			t.Fatal(err)
		}
		type holder struct{ inner, Outer Secret }
		type deep struct {
			M map[string]any
			L []holder
			p *holder
		}
		h := holder{issued.Secret, rotated.Secret}
		values := []any{
			issued, &issued, rotated, &rotated, imported, &imported, issued.Secret, &issued.Secret, foreign, &foreign,
			h, &h, []Secret{issued.Secret}, map[string]Secret{"k": issued.Secret}, deep{map[string]any{"x": h}, []holder{h}, &h},
			issued.Key, result, *result.Principal, result.Principal, m.Authenticator.CacheStats(), m.Stats(),
			fmt.Errorf("wrapped: %w", &ThrottledError{time.Second}),
		}
		for i, v := range values {
			for name, text := range printed(v) {
				for _, s := range secrets {
					// Nor any run of it that is longer than what is displayed.
					from := 0
					if m.format.ours(s) {
						from = len("pl_live_") + 1
					}
					for j := from; j+8 <= len(s); j++ {
						if strings.Contains(text, s[j:j+8]) {
							t.Fatalf("value %d (%T) printed by %s has %q of a key:\n%s", i, v, name, s[j:j+8], text)
						}
					}
				}
				if strings.HasPrefix(name, "%") && name != "%p" || strings.HasPrefix(name, "slog") {
					if strings.Contains(text, "555-0123") {
						t.Errorf("value %d (%T) printed by %s has metadata:\n%s", i, v, name, text)
					}
				}
			}
		}
	})
}

// printed returns a value in every way that this module's users are likely to print it.
func printed(v any) map[string]string {
	out := map[string]string{}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d", "%T", "%p", "%10.3v", "%t", "%e", "%U"} {
		out[verb] = fmt.Sprintf(verb, v)
	}
	var buf bytes.Buffer
	slog.New(slog.NewTextHandler(&buf, nil)).Info("m", "v", v)
	out["slog text"] = buf.String()
	buf.Reset()
	slog.New(slog.NewJSONHandler(&buf, nil)).Info("m", "v", v, slog.Group("g", "v", v))
	if !strings.Contains(buf.String(), `"metadata"`) { // a struct that is logged whole is encoded as JSON
		out["slog json"] = buf.String()
	} else {
		out["json log"] = buf.String()
	}
	if b, err := json.Marshal(v); err == nil {
		out["json"] = string(b)
	}
	if b, err := xml.Marshal(v); err == nil {
		out["xml"] = string(b)
	}
	buf.Reset()
	if gob.NewEncoder(&buf).Encode(v) == nil {
		out["gob"] = buf.String()
	}
	out["panic"] = func() (s string) {
		defer func() { s = fmt.Sprint(recover()) }()
		panic(v)
	}()
	out["join"] = fmt.Sprint(errors.Join(fmt.Errorf("%v", v)))
	out["reflect"] = fmt.Sprint(reflect.ValueOf(v))
	return out
}

// What is handed to others, members, stores, the shared cache, a log at its most talkative, has no key in it.
func TestNothingSentOrLoggedHasASecret(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		shared := newFakeShared()
		shared.loseDeletes = true
		sent := &recordingPeers{}
		store := newFaultyStore()
		a, err := New(Config{
			Store: store, Shared: shared, peers: sent, LastUsedEvery: time.Second,
			Logger: slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug})),
		})
		if err != nil {
			t.Fatal(err)
		}
		ctx := context.Background()
		issued, err := a.Create(ctx, Spec{Project: "shop"})
		if err != nil {
			t.Fatal(err)
		}
		key := issued.Secret.Reveal()
		for range 3 {
			if r, err := a.Verify(ctx, key); r.Verdict != Valid {
				t.Fatal(r, err)
			}
			time.Sleep(2 * time.Second)
		}
		store.down.Store(true)
		time.Sleep(time.Second)
		_, verifyErr := a.Verify(ctx, key[:len(key)-1]+"!")
		_, unavailable := a.Verify(ctx, "some-other-key-1234567890")
		store.down.Store(false)
		if _, err := a.Rotate(ctx, issued.Key.ID, time.Hour); err != nil {
			t.Fatal(err)
		}
		if _, err := a.Disable(ctx, issued.Key.ID); err != nil {
			t.Fatal(err)
		}
		if _, err := a.ClearCache(ctx, key); err != nil {
			t.Fatal(err)
		}
		a.heard([]byte("nonsense " + key))
		records, _ := store.Memory.History(ctx, issued.Key.ID, 10)
		kept, _ := store.Memory.List(ctx, Query{})
		_ = a.Close()
		for name, text := range map[string]string{
			"log": log.String(), "messages": sent.String(), "shared cache": fmt.Sprintf("%s", shared.values),
			"records": fmt.Sprintf("%+v", records), "errors": fmt.Sprint(verifyErr, unavailable), "store": fmt.Sprintf("%q", reflect.ValueOf(kept)),
		} {
			for _, s := range []string{key, key[12:], "some-other-key"} {
				if strings.Contains(text, s) {
					t.Errorf("%s: has %q:\n%s", name, s, text)
				}
			}
		}
		if log.Len() == 0 || sent.Len() == 0 || len(shared.values) == 0 {
			t.Error("nothing was logged, sent or shared; the test needs it")
		}
	})
}

// recordingPeers is a member alone that keeps what it sends.
type recordingPeers struct {
	alone
	bytes.Buffer
}

func (p *recordingPeers) broadcast(ctx context.Context, kind string, payload []byte) Receipt {
	p.Write(payload)
	return p.alone.broadcast(ctx, kind, payload)
}
