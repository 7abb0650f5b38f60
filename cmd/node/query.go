package main

import (
	"net/http"
	"net/url"
	"slices"

	"github.com/peerlimit/peerlimit/cmd/node/internal/strictjson"
)

// query is a request's query string with only what the route knows, each once.
type query map[string]string

// readQuery refuses what known does not name: a misspelt prefix would otherwise
// reset every key there is.
func readQuery(r *http.Request, known ...string) (query, []strictjson.FieldError) {
	values, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return nil, []strictjson.FieldError{{Field: "query", Detail: "can't be parsed"}}
	}
	q := query{}
	var fields []strictjson.FieldError
	for name, given := range values {
		switch {
		case !slices.Contains(known, name):
			fields = append(fields, strictjson.FieldError{Field: name, Detail: "is not known here"})
		case len(given) > 1:
			fields = append(fields, strictjson.FieldError{Field: name, Detail: "is given twice"})
		default:
			q[name] = given[0]
		}
	}
	slices.SortFunc(fields, func(a, b strictjson.FieldError) int {
		if a.Field < b.Field {
			return -1
		}
		return 1
	})
	return q, fields
}

// or returns a value, or fallback where it was left out.
func (q query) or(name, fallback string) string {
	if value, given := q[name]; given {
		return value
	}
	return fallback
}
