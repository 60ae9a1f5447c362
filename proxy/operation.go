package proxy

import (
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/schema"
)

// operation is everything known about one request.
type operation struct {
	// What came in.
	w      http.ResponseWriter
	r      *http.Request
	client *http.Request // r as the client sent it, where an edge serves it as something else
	start  time.Time
	// ctx is the caller's patience: its connection, and below it the deadline that it gave, once that was read.
	ctx context.Context
	// The deadline that it gave; zero if it gave none.
	deadline time.Time

	// What it is, decided on the headers alone.
	kind       contentKind
	protocol   protocol
	edge       edge           // nil for protocolHTTP
	fullMethod string         // "/pkg.Service/Method"; "" when it is no API call
	method     *schema.Method // nil: the schema does not know it
	needsHTTP2 bool           // goes upstream over HTTP/2, whatever the client's own version
	upgrade    string         // the protocol to switch to; "" when none

	// What fires. Both nil: the bytes stream through.
	request, response *dispatcher.Plan

	// For REST: where in the HTTP call the message is, and the messages in that form.
	route     schema.RouteMatch
	formQuery bool             // the body is a form, which the upstream takes for a query
	others    []*schema.Method // what the request might mean to other servers
	restIn    *schema.RESTRequest
	restOut   *schema.RESTResponse

	// What targets are told.
	inv     dispatcher.Invocation
	headers map[string][]string
	host    [1]string

	// The messages of a matched call.
	in, out *schema.Message
	head    []byte // what was read of the request body
	whole   bool   // head is all of it
	frame   frame  // the request message as it came, where messages come in frames
	body    []byte // the request's body without its coding, where messages are bodies
	// The response message came compressed, in an encoding that the gateway can write.
	compressed bool
	coding     string // of the response's body

	// The answer.
	handedBack   bool // it is the engine's; see handBack
	started      bool // its headers are handed over
	lateTrailers bool // a status without message must not be sent as headers only
	announced    []string
	webWriter    *webWriter // below grpcweb's wrapper
	watch        watcher    // sees the answer's body pass, for its status
	code         string     // as the metric says it
	matched      bool       // some target was, or should have been, asked
	outcome      string     // for the log; "" is ok
	err          error      // for the log

	// The executions that matched, for the log.
	firedRequest, firedResponse string

	// Where the time of a matched call went.
	received time.Time // when the request message had been read
	targets  time.Duration
	upstream time.Duration
}

// errorHeader is the header map that an error of the gateway is sent with.
func (op *operation) errorHeader() http.Header {
	if op.webWriter != nil {
		return op.webWriter.ResponseWriter.Header()
	}
	return op.w.Header()
}

// label is the metric label for the method.
func (op *operation) label() string {
	if op.method == nil {
		return otherMethod
	}
	return op.method.FullMethod
}

// now is the time. Of the two clocks it asks but one.
func (op *operation) now() time.Time { return op.start.Add(time.Since(op.start)) }

var operations = sync.Pool{New: func() any { return new(operation) }}

func newOperation(w http.ResponseWriter, r *http.Request) *operation {
	op := operations.Get().(*operation)
	op.w, op.r, op.client, op.start, op.ctx = w, r, r, time.Now(), r.Context()
	return op
}

// release gives op back. Nothing that outlives the handler may hold it.
func (op *operation) release() {
	headers := op.headers
	clear(headers)
	*op = operation{headers: headers}
	operations.Put(op)
}
