package e2e

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// chromiumVariable names the Chromium that tests of pages run.
const chromiumVariable = "PEERLIMIT_TEST_CHROMIUM"

// Browser is a headless Chromium with one tab. It is driven over the DevTools
// protocol on a pipe (--remote-debugging-pipe: JSON ended by a zero byte, what
// it reads on descriptor 3, what it writes on 4), and reaches 127.0.0.1 only.
type Browser struct {
	t       testing.TB
	to      io.WriteCloser
	session string

	mu       sync.Mutex
	next     int                      // guarded by mu
	waiting  map[int]chan<- cdpAnswer // guarded by mu; nil: it has ended
	mistakes []string                 // guarded by mu: errors of the console and of scripts
	requests []string                 // guarded by mu: addresses that were asked for
}

type cdpAnswer struct {
	result json.RawMessage
	err    error
}

var errBrowserEnded = errors.New("the browser has ended")

// StartBrowser starts a browser, or skips the test where there is none. It ends
// with the test.
func StartBrowser(t testing.TB) *Browser {
	t.Helper()
	program := os.Getenv(chromiumVariable)
	if program == "" {
		t.Skip("no browser: set " + chromiumVariable + " to a Chromium")
	}
	theirIn, to, err := os.Pipe()
	require.NoError(t, err)
	from, theirOut, err := os.Pipe()
	require.NoError(t, err)
	c := exec.Command(program, "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe",
		"--user-data-dir="+t.TempDir(), "--no-first-run", "--disable-extensions", "--disable-background-networking",
		"--disable-component-update", "--disable-dev-shm-usage", "--no-proxy-server",
		"--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1")
	c.ExtraFiles = []*os.File{theirIn, theirOut}
	require.NoError(t, processes.start(c))
	_ = theirIn.Close()
	_ = theirOut.Close()
	b := &Browser{t: t, to: to, waiting: map[int]chan<- cdpAnswer{}}
	var reading sync.WaitGroup
	reading.Go(func() { b.read(from) })
	t.Cleanup(func() {
		if _, err := b.call("Browser.close", nil); err != nil && !errors.Is(err, errBrowserEnded) {
			t.Errorf("close the browser: %v", err)
			_ = c.Process.Kill()
		}
		_ = processes.wait(c)
		reading.Wait()
		_ = to.Close()
		_ = from.Close()
	})
	var target struct{ TargetID, SessionID string }
	b.do("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	b.do("Target.attachToTarget", map[string]any{"targetId": target.TargetID, "flatten": true}, &target)
	b.session = target.SessionID
	for _, domain := range []string{"Page", "Runtime", "Log", "Network", "Accessibility"} {
		b.do(domain+".enable", nil, nil)
	}
	return b
}

// read takes what the browser says until it says no more.
func (b *Browser) read(from io.Reader) {
	for r := bufio.NewReader(from); ; {
		text, err := r.ReadBytes(0)
		if err != nil {
			break
		}
		var m struct {
			ID     int
			Method string
			Result json.RawMessage
			Error  *struct{ Message string }
			Params struct {
				Type             string
				Args             []json.RawMessage
				ExceptionDetails json.RawMessage
				Entry            struct{ Level, Text, URL string }
				Request          struct{ URL string }
			}
		}
		if err := json.Unmarshal(text[:len(text)-1], &m); err != nil {
			b.note(&b.mistakes, fmt.Sprintf("the browser said %.200q: %v", text, err))
			continue
		}
		switch m.Method {
		case "":
			a := cdpAnswer{result: m.Result}
			if m.Error != nil {
				a.err = errors.New(m.Error.Message)
			}
			b.mu.Lock()
			waiting := b.waiting[m.ID]
			delete(b.waiting, m.ID)
			b.mu.Unlock()
			if waiting != nil {
				waiting <- a
			}
		case "Runtime.consoleAPICalled":
			if m.Params.Type == "error" || m.Params.Type == "warning" || m.Params.Type == "assert" {
				b.note(&b.mistakes, fmt.Sprintf("console.%s %s", m.Params.Type, m.Params.Args))
			}
		case "Runtime.exceptionThrown":
			b.note(&b.mistakes, "exception "+string(m.Params.ExceptionDetails))
		case "Log.entryAdded":
			if e := m.Params.Entry; e.Level == "error" || e.Level == "warning" {
				b.note(&b.mistakes, fmt.Sprintf("%s: %s %s", e.Level, e.Text, e.URL))
			}
		case "Network.requestWillBeSent":
			b.note(&b.requests, m.Params.Request.URL)
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, waiting := range b.waiting {
		waiting <- cdpAnswer{err: errBrowserEnded}
	}
	b.waiting = nil
}

func (b *Browser) note(list *[]string, what string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	*list = append(*list, what)
}

// Mistakes are the errors and warnings that there have been so far.
func (b *Browser) Mistakes() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.mistakes...)
}

// Requests are the addresses that the page has asked for so far.
func (b *Browser) Requests() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return append([]string(nil), b.requests...)
}

// call calls a method of the protocol.
func (b *Browser) call(method string, params any) (json.RawMessage, error) {
	answer := make(chan cdpAnswer, 1)
	b.mu.Lock()
	if b.waiting == nil {
		b.mu.Unlock()
		return nil, errBrowserEnded
	}
	b.next++
	id := b.next
	b.waiting[id] = answer
	b.mu.Unlock()
	message := map[string]any{"id": id, "method": method}
	if params != nil {
		message["params"] = params
	}
	if b.session != "" && !strings.HasPrefix(method, "Browser.") {
		message["sessionId"] = b.session
	}
	if _, err := b.to.Write(append(mustJSON(message), 0)); err != nil {
		return nil, fmt.Errorf("%s: %w", method, err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	select {
	case a := <-answer:
		if a.err != nil {
			return nil, fmt.Errorf("%s: %w", method, a.err)
		}
		return a.result, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

// do is call for those that must succeed.
func (b *Browser) do(method string, params, result any) {
	b.t.Helper()
	answer, err := b.call(method, params)
	require.NoError(b.t, err)
	if result != nil {
		require.NoError(b.t, json.Unmarshal(answer, result), "%s: %s", method, answer)
	}
}

// Open loads an address.
func (b *Browser) Open(url string) {
	b.t.Helper()
	var opened struct{ ErrorText string }
	b.do("Page.navigate", map[string]any{"url": url}, &opened)
	require.Empty(b.t, opened.ErrorText)
}

// Evaluate runs an expression in the page and decodes its value.
func (b *Browser) Evaluate(expression string, value any) error {
	answer, err := b.call("Runtime.evaluate", map[string]any{"expression": expression, "returnByValue": true, "awaitPromise": true})
	if err != nil {
		return err
	}
	var evaluated struct {
		Result           struct{ Value json.RawMessage }
		ExceptionDetails json.RawMessage
	}
	if err := json.Unmarshal(answer, &evaluated); err != nil {
		return err
	}
	if evaluated.ExceptionDetails != nil {
		return fmt.Errorf("%s: %s", expression, evaluated.ExceptionDetails)
	}
	return json.Unmarshal(evaluated.Result.Value, value)
}

// Look sets the size of the window in CSS pixels, and light or dark.
func (b *Browser) Look(width, height int, theme string) {
	b.t.Helper()
	b.do("Emulation.setDeviceMetricsOverride", map[string]any{
		"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}, nil)
	b.do("Emulation.setEmulatedMedia", map[string]any{
		"features": []map[string]string{{"name": "prefers-color-scheme", "value": theme}}}, nil)
}

// Screenshot returns the window as a PNG.
func (b *Browser) Screenshot() []byte {
	b.t.Helper()
	var shot struct{ Data string }
	b.do("Page.captureScreenshot", map[string]any{"format": "png"}, &shot)
	png, err := base64.StdEncoding.DecodeString(shot.Data)
	require.NoError(b.t, err)
	return png
}
