package main

import (
	"encoding/json"
	"net/http"

	"github.com/peerlimit/peerlimit/cmd/node/internal/strictjson"
)

// problem is an error's answer by RFC 9457. Its type is about:blank, so the
// title is the status's own; detail says what happened, and errors, where the
// input is to blame, which field and why.
type problem struct {
	Type   string                  `json:"type"`
	Title  string                  `json:"title"`
	Status int                     `json:"status"`
	Detail string                  `json:"detail,omitempty"`
	Errors []strictjson.FieldError `json:"errors,omitempty"`
	// Verdict is of an API key, where that is what the answer is about.
	Verdict string `json:"verdict,omitempty"`
}

func writeProblem(w http.ResponseWriter, status int, detail string, fields ...strictjson.FieldError) {
	problem{Status: status, Detail: detail, Errors: fields}.write(w)
}

// write answers with p; type and title go with its status.
func (p problem) write(w http.ResponseWriter) {
	p.Type, p.Title = "about:blank", http.StatusText(p.Status)
	body, err := json.Marshal(p)
	if err != nil { // strings and numbers always can be marshalled
		panic(err)
	}
	w.Header().Set("Content-Type", "application/problem+json")
	w.WriteHeader(p.Status)
	_, _ = w.Write(append(body, '\n'))
}

// refuseInput answers input that names what is wrong with it.
func refuseInput(w http.ResponseWriter, fields ...strictjson.FieldError) {
	writeProblem(w, http.StatusBadRequest, "the request has input that is not valid", fields...)
}

// writeJSON answers with a body that was marshalled already.
func writeJSON(w http.ResponseWriter, status int, body []byte) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// writeJSONValue answers with a value, for routes where its cost is no matter.
func writeJSONValue(w http.ResponseWriter, status int, value any) {
	body, err := json.Marshal(value)
	if err != nil { // routes answer with plain structs only
		panic(err)
	}
	writeJSON(w, status, append(body, '\n'))
}
