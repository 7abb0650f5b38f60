package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/peerlimit/peerlimit/cmd/node/internal/strictjson"
)

// clientFlags are what every command that talks to a member takes.
type clientFlags struct {
	HTTP         baseURL       `name:"http" default:"http://127.0.0.1:8080" placeholder:"URL" help:"The member's HTTP API."`
	APITokenFile string        `placeholder:"FILE" help:"File whose first line is the token to send, where the member asks for one."`
	Timeout      time.Duration `default:"5s" help:"How long to wait for an answer, from 1ms to 10m."`
}

func (f *clientFlags) connect() (*client, error) {
	if f.Timeout < time.Millisecond || f.Timeout > 10*time.Minute {
		return nil, usagef("--timeout: must be from 1ms to 10m, got %s", f.Timeout)
	}
	c := &client{base: string(f.HTTP), http: &http.Client{Timeout: f.Timeout}}
	if f.APITokenFile != "" {
		tokens, err := readSecrets("--api-token-file", f.APITokenFile, 1)
		if err != nil {
			return nil, err
		}
		c.token = tokens[0]
	}
	return c, nil
}

// client asks one member's HTTP API.
type client struct {
	base  string
	token string
	http  *http.Client
}

// problemError is an answer that is an error.
type problemError struct {
	url string
	problem
}

func (e *problemError) Error() string {
	text := fmt.Sprintf("%s: %d %s", e.url, e.Status, e.Title)
	if e.Detail != "" {
		text += ": " + e.Detail
	}
	for _, f := range e.Errors {
		text += fmt.Sprintf("; %s %s", f.Field, f.Detail)
	}
	return text
}

// do sends one request and returns the answer's body. A status other than the
// wanted ones is a *problemError.
func (c *client) do(ctx context.Context, method, path string, body []byte, wanted ...int) ([]byte, int, error) {
	request, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return nil, 0, err
	}
	if body != nil {
		request.Header.Set("Content-Type", "application/json")
	}
	if c.token != "" {
		request.Header.Set("Authorization", "Bearer "+c.token)
	}
	response, err := c.http.Do(request)
	if err != nil {
		var broken *url.Error // its text has the method and the URL, which --http tells
		if errors.As(err, &broken) {
			err = broken.Err
		}
		return nil, 0, fmt.Errorf("%s: %w", c.base, err)
	}
	defer response.Body.Close()
	answer, err := io.ReadAll(io.LimitReader(response.Body, 64<<20))
	if err != nil {
		return nil, 0, fmt.Errorf("%s: %w", c.base, err)
	}
	for _, status := range wanted {
		if response.StatusCode == status {
			return answer, status, nil
		}
	}
	failed := &problemError{url: c.base, problem: problem{Status: response.StatusCode, Title: http.StatusText(response.StatusCode)}}
	if strings.HasPrefix(response.Header.Get("Content-Type"), "application/problem+json") {
		if err := json.Unmarshal(answer, &failed.problem); err != nil {
			return nil, 0, fmt.Errorf("%s: %d with a problem that is not JSON: %w", c.base, response.StatusCode, err)
		}
	}
	return nil, response.StatusCode, failed
}

// usageOf turns a member's refusal of a field into bad usage of the flag that
// it came from; flags maps fields to flags.
func usageOf(err error, flags map[string]string) error {
	var failed *problemError
	if !errors.As(err, &failed) || failed.Status != http.StatusBadRequest || len(failed.Errors) == 0 {
		return err
	}
	return usagef("%s", describeFields(failed.Errors, flags))
}

func describeFields(fields []strictjson.FieldError, flags map[string]string) string {
	var parts []string
	for _, f := range fields {
		name := f.Field
		if flag, ok := flags[name]; ok {
			name = flag
		}
		parts = append(parts, name+": "+f.Detail)
	}
	return strings.Join(parts, "; ")
}
