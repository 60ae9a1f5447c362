package targetclient

import (
	"bytes"
	"encoding/json"
	"net/http"
)

// forwarded are the keys by which a target asks for an error. They are matched
// as encoding/json matches them: whatever their case, the last of several
// counts, null leaves what is there.
type forwarded struct {
	StatusCode   int    `json:"forwardedStatusCode"`
	ErrorMessage string `json:"forwardedErrorMessage"`
}

// classify says what a complete answer means; nil is success. The body counts
// with a 2xx status only.
func classify(status int, body []byte) *Error {
	if status < 200 || status > 299 {
		return &Error{Reason: ReasonFailed, StatusCode: status}
	}
	if !mayForward(body) {
		return nil
	}
	var f forwarded
	if err := json.Unmarshal(body, &f); err != nil {
		// Not an object with these keys in their types (403.0 is not an
		// integer): nothing of it is a request for an error, not even the key
		// that could be read.
		return nil //nolint:nilerr // see above
	}
	switch {
	case f.StatusCode >= http.StatusBadRequest && f.StatusCode < http.StatusInternalServerError:
		return &Error{Reason: ReasonForwarded, StatusCode: status, ForwardedStatus: f.StatusCode, Message: f.ErrorMessage}
	case f.StatusCode != 0 || f.ErrorMessage != "":
		return &Error{Reason: ReasonPrecondition, StatusCode: status, ForwardedStatus: f.StatusCode, Message: f.ErrorMessage}
	}
	return nil
}

// mayForward spares most answers the parsing: only an object can hold the keys,
// and a key is spelled with a "w" unless it is escaped.
func mayForward(body []byte) bool {
	trimmed := bytes.TrimLeft(body, " \t\r\n")
	if len(trimmed) == 0 || trimmed[0] != '{' {
		return false
	}
	for rest := trimmed; ; {
		// "wardedStatusCode" and "wardedErrorMessage" are both "ward".
		i := bytes.IndexAny(rest, `wW\`)
		if i < 0 {
			return false
		}
		if rest[i] == '\\' || (len(rest) >= i+4 && bytes.EqualFold(rest[i:i+4], []byte("ward"))) {
			return true
		}
		rest = rest[i+1:]
	}
}
