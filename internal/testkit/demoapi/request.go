package demoapi

import (
	"sync"

	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// Protocols by which a request can come in.
const (
	ProtocolGRPC    = "grpc"
	ProtocolGRPCWeb = "grpc_web"
	ProtocolConnect = "connect"
	ProtocolREST    = "rest"
	ProtocolHTTP    = "http"
)

// Request is what reached the server: a call, or one message of a stream.
type Request struct {
	// Protocol is one of the Protocol constants.
	Protocol string
	// Method is the full gRPC name with its leading slash; for ProtocolHTTP the
	// verb and the path.
	Method string
	// Host is the authority that the caller used, with its port.
	Host string
	// Message is nil for ProtocolHTTP, and in what Last returns when it was
	// larger than 1 MiB.
	Message proto.Message
	// Metadata has the request's headers under lower-case names. Over REST it is
	// what the REST door makes of them.
	Metadata metadata.MD
}

// keepBytes is the size beyond which Last keeps no message.
const keepBytes = 1 << 20

// requests remembers the last request of each method.
type requests struct {
	mu   sync.Mutex
	last map[string]Request
	seen map[string]int
}

func (r *requests) add(req Request) {
	if req.Message != nil && proto.Size(req.Message) > keepBytes {
		req.Message = nil
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.last == nil {
		r.last, r.seen = map[string]Request{}, map[string]int{}
	}
	r.last[req.Method] = req
	r.seen[req.Method]++
}

// Last returns the latest request of a method, named as Request.Method is, and
// false when there was none. What it returns must not be changed.
func (s *Server) Last(method string) (Request, bool) {
	s.requests.mu.Lock()
	defer s.requests.mu.Unlock()
	req, ok := s.requests.last[method]
	return req, ok
}

// Count returns how many requests of a method came in; of a stream, how many
// messages.
func (s *Server) Count(method string) int {
	s.requests.mu.Lock()
	defer s.requests.mu.Unlock()
	return s.requests.seen[method]
}

// saw hands a request to whoever watches.
func (s *Server) saw(req Request) {
	s.requests.add(req)
	if s.opts.OnRequest != nil {
		s.opts.OnRequest(req)
	}
}
