package proxy

import (
	"bytes"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"

	"github.com/execgate/execgate/schema"
)

// restEdge speaks REST: the message is in path, query and body, as the google.api.http rule says that matched.
type restEdge struct{}

var (
	_ edge  = restEdge{}
	_ codec = restEdge{}
)

func (e restEdge) serve(p *Proxy, op *operation) { p.serveMatched(op, e) }

// timeout is grpc-gateway's: it honours the header of gRPC.
func (restEdge) timeout(r *http.Request) (time.Duration, bool) { return grpcEdge{}.timeout(r) }

func (restEdge) setTimeout(out *http.Request, left time.Duration) bool {
	return grpcEdge{}.setTimeout(out, left)
}

// splitTarget returns path and query ("?" not included) of a request's target, as they were sent.
func splitTarget(r *http.Request) (path, rawQuery string) {
	path, rawQuery, _ = strings.Cut(requestTarget(r), "?")
	return path, rawQuery
}

func (restEdge) readRequest(op *operation, limit int64) (*unevaluable, error) {
	_, rawQuery := splitTarget(op.r)
	var data []byte
	var err error
	if op.formQuery || op.route.HasBody() {
		data, err = readWhole(op.r.Body, limit)
		op.head, op.whole = data, err == nil
	}
	coding := ""
	if len(data) > 0 {
		coding = contentCoding(op.r.Header)
	}
	if op.formQuery && coding != "" {
		return unknownEncoding(coding), nil // Who reads forms does not decode them.
	}
	return decodeBody(op, err, coding, limit, func(input *schema.MessageType, body []byte) (*schema.Message, error) {
		switch {
		case op.formQuery:
			// What the form says comes before what the query says.
			rawQuery, body = joinQuery(string(body), rawQuery), nil
		case isForm(op.r) && trailing(body):
			return nil, errCorrupt // Some servers take what follows the JSON for more of the form.
		}
		in, err := op.route.DecodeRequest(rawQuery, body)
		if err != nil {
			return nil, err
		}
		op.restIn = in
		return in.Message, nil
	}, data)
}

func joinQuery(first, second string) string {
	if first == "" || second == "" {
		return first + second
	}
	return first + "&" + second
}

// trailing reports whether something follows the JSON value that body begins with.
func trailing(body []byte) bool {
	d := json.NewDecoder(bytes.NewReader(body))
	var first json.RawMessage
	return d.Decode(&first) == nil && len(bytes.TrimSpace(body[d.InputOffset():])) > 0
}

func (restEdge) writeRequest(op *operation, out *http.Request) error {
	path, rawQuery, body, err := op.restIn.Encode()
	if err != nil {
		return err
	}
	target := path
	if rawQuery != "" {
		target += "?" + rawQuery
	}
	if op.formQuery {
		// What was a form is now in the query, and the call what the upstream would have made of it.
		setTarget(out, target)
		out.Method = op.route.HTTPMethod()
		delete(out.Header, headerMethodOverride)
		delete(out.Header, headerContentType)
		if op.route.HasBody() && len(body) > 0 {
			out.Header[headerContentType] = []string{contentTypeJSON}
		}
		setRequestBody(out, body)
		return nil
	}
	if sentPath, sentQuery := splitTarget(op.r); path != sentPath || rawQuery != sentQuery {
		setTarget(out, target)
	}
	if !op.route.HasBody() || bytes.Equal(body, op.body) {
		return nil // The body goes on as it came.
	}
	coding := ""
	if len(op.body) > 0 {
		coding = contentCoding(op.r.Header)
	}
	if body, err = encodeContent(coding, body); err != nil {
		return err
	}
	if _, ok := out.Header[headerContentType]; !ok && len(body) > 0 {
		out.Header[headerContentType] = []string{contentTypeJSON}
	}
	if len(op.body) == 0 {
		delete(out.Header, headerContentEncoding)
	}
	setRequestBody(out, body)
	return nil
}

func (restEdge) limitAnswer(out *http.Request) {
	limitCodings(out.Header)
	// A part of an answer cannot be read; that a server sends the whole is always right.
	delete(out.Header, "Range")
	delete(out.Header, "If-Range")
}

func (restEdge) readResponse(op *operation, res *http.Response, limit int64) (bool, *unevaluable, error) {
	if res.StatusCode < http.StatusOK || res.StatusCode >= http.StatusMultipleChoices || !hasContent(op.r, res) {
		return false, nil, nil
	}
	if res.StatusCode == http.StatusPartialContent || !op.route.RawResponse() && !isJSON(res.Header) {
		return false, undecodableResponse(op.method.Output().Name(), nil), nil
	}
	return decodeAnswer(op, res, limit, func(body []byte) (*schema.Message, error) {
		out, err := op.route.DecodeResponse(body)
		if err != nil {
			return nil, err
		}
		op.restOut = out
		return out.Message, nil
	})
}

// hasContent reports whether an answer has a body at all.
func hasContent(r *http.Request, res *http.Response) bool {
	return r.Method != http.MethodHead && res.ContentLength != 0 &&
		res.StatusCode != http.StatusNoContent && res.StatusCode != http.StatusResetContent
}

// isJSON reports whether a body is JSON, or does not say.
func isJSON(h http.Header) bool {
	t := mediaType(h[headerContentType])
	return t == contentTypeJSON || t == "" || strings.HasSuffix(t, "+json")
}

func (restEdge) writeResponse(op *operation, res *http.Response) error {
	body, err := op.restOut.Encode()
	if err != nil {
		return err
	}
	if body, err = encodeContent(op.coding, body); err != nil {
		return err
	}
	setResponseBody(res, body)
	return nil
}

func (restEdge) watch(_ *operation, res *http.Response) watcher {
	if res.StatusCode < http.StatusBadRequest {
		return nil
	}
	return &bodyStatus{}
}

func (restEdge) answerCode(op *operation, res *http.Response) string {
	if res.StatusCode < http.StatusBadRequest {
		return codeNames[codes.OK]
	}
	if seen, ok := op.watch.(*bodyStatus); ok {
		var e struct {
			Code codes.Code `json:"code"`
		}
		body, err := decodeContent(contentCoding(res.Header), seen.body, maxErrorBody)
		if err == nil && json.Unmarshal(body, &e) == nil && e.Code > codes.OK && int(e.Code) < len(codeNames) {
			return codeNames[e.Code]
		}
	}
	return codeNames[statusToCode(res.StatusCode)]
}

// restError is an error as grpc-gateway writes it.
type restError struct {
	Code    codes.Code   `json:"code"`
	Message string       `json:"message,omitempty"`
	Details []restDetail `json:"details,omitempty"`
}

type restDetail struct {
	Type    string `json:"@type"`
	ID      string `json:"id"`
	Message string `json:"message,omitempty"`
}

func (e *callError) rest() restError {
	out := restError{Code: e.code, Message: e.message}
	if e.id != "" {
		out.Details = []restDetail{{Type: "type.googleapis.com/" + errorDetailType, ID: e.id, Message: e.detail}}
	}
	return out
}

func (restEdge) writeError(op *operation, e *callError) bool {
	if op.started {
		return false
	}
	return writeJSON(op, e, httpStatus(e.code), e.rest())
}
