package proxy

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"

	"github.com/execgate/execgate/schema"
)

// restStreamEdge is REST while a stream is answered: one JSON object on a line, with the message under "result" or, at
// the end, what went wrong under "error".
type restStreamEdge struct{ restEdge }

var _ edge = restStreamEdge{}

func (restEdge) limitStream(out *http.Request) {
	restEdge{}.limitAnswer(out)
	// A coding is undone as a whole, and the lines come one by one.
	if len(out.Header[headerAcceptCodings]) > 0 {
		out.Header[headerAcceptCodings] = []string{encodingIdentity}
	}
}

func (restEdge) openStream(op *operation, res *http.Response) (splitter, *unevaluable) {
	if res.StatusCode < http.StatusOK || res.StatusCode >= http.StatusMultipleChoices || !hasContent(op.r, res) {
		return nil, nil
	}
	if coding := contentCoding(res.Header); coding != "" {
		return nil, unknownEncoding(coding)
	}
	if res.StatusCode == http.StatusPartialContent || op.route.RawResponse() || !isJSON(res.Header) {
		return nil, undecodableResponse(op.method.Output().Name(), nil)
	}
	op.edge = restStreamEdge{}
	return &lines{route: op.route, output: op.method.Output()}, nil
}

// writeError ends a stream that has begun with a line of its own.
func (e restStreamEdge) writeError(op *operation, failure *callError) bool {
	if !op.started {
		return e.restEdge.writeError(op, failure)
	}
	b, err := json.Marshal(map[string]restError{"error": failure.rest()})
	if err != nil {
		return false
	}
	_, err = op.w.Write(append(b, '\n'))
	return err == nil
}

// lines takes a stream of JSON apart.
type lines struct {
	route  schema.RouteMatch
	output *schema.MessageType
}

func (s *lines) next(src *bufio.Reader, limit int64) (part, error) {
	var line []byte
	for {
		piece, err := src.ReadSlice('\n')
		line = append(line, piece...)
		full := errors.Is(err, bufio.ErrBufferFull)
		switch {
		case err != nil && err != io.EOF && !full:
			return part{}, err
		case err == io.EOF && len(line) == 0:
			return part{}, io.EOF
		case int64(len(line)) > limit && full:
			// The next message begins where the line ends; that is not looked for.
			return part{raw: line, rest: allOfIt, problem: tooLarge(s.output.Name())}, nil
		case int64(len(line)) > limit:
			return part{raw: line, problem: tooLarge(s.output.Name())}, nil
		case !full:
			return s.part(line), nil
		}
	}
}

// part decodes the message of a line.
func (s *lines) part(line []byte) part {
	if len(bytes.TrimSpace(line)) == 0 {
		return part{raw: line}
	}
	start, end, failed := findResult(line)
	switch {
	case failed: // The upstream's error passes.
		return part{raw: line}
	case start == end:
		return part{raw: line, problem: undecodableResponse(s.output.Name(), nil)}
	}
	m, err := s.route.DecodeResponse(line[start:end:end])
	if err != nil {
		return part{raw: line, problem: undecodableResponse(s.output.Name(), err)}
	}
	return part{raw: line, message: m.Message, render: func() ([]byte, error) {
		body, err := m.Encode()
		if err != nil {
			return nil, err
		}
		return bytes.Join([][]byte{line[:start], body, line[end:]}, nil), nil
	}}
}

// findResult finds the message in a line; start is end if there is none, or more than one. failed says that the line
// carries an error.
func findResult(line []byte) (start, end int, failed bool) {
	d := json.NewDecoder(bytes.NewReader(line))
	if t, err := d.Token(); err != nil || t != json.Delim('{') {
		return 0, 0, false
	}
	seen := 0
	for d.More() {
		key, err := d.Token()
		if err != nil {
			return 0, 0, false
		}
		var value json.RawMessage
		if d.Decode(&value) != nil {
			return 0, 0, false
		}
		seen++
		switch key {
		case "result":
			end = int(d.InputOffset())
			start = end - len(value)
		case "error":
			failed = true
		}
	}
	if _, err := d.Token(); err != nil || seen != 1 || len(bytes.TrimSpace(line[d.InputOffset():])) > 0 {
		return 0, 0, false
	}
	return start, end, failed
}
