package demoapi

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"errors"
	"io"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/durationpb"

	spb "google.golang.org/genproto/googleapis/rpc/status"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
)

// Metadata that a caller sends to StreamService to have something sent back:
// "x-send-header-foo: bar" makes the response header "foo: bar".
const (
	sendHeaderPrefix  = "x-send-header-"
	sendTrailerPrefix = "x-send-trailer-"
)

// streams is StreamService without the types of a transport.
type streams struct{}

// Echo returns the message and what came with it.
func (s *streams) Echo(ctx context.Context, req *demopb.EchoRequest) (*demopb.EchoResponse, error) {
	c := callOf(ctx)
	answerMetadata(c)
	resp := &demopb.EchoResponse{
		Echo:     req,
		Protocol: c.protocol,
		Host:     c.host,
		Metadata: map[string]*demopb.Values{},
	}
	for k, values := range c.md {
		out := &demopb.Values{Values: values}
		if strings.HasSuffix(k, "-bin") {
			out.Values = nil
			for _, v := range values {
				out.Values = append(out.Values, base64.StdEncoding.EncodeToString([]byte(v)))
			}
		}
		resp.Metadata[k] = out
	}
	if deadline, ok := ctx.Deadline(); ok {
		resp.TimeLeft = durationpb.New(time.Until(deadline))
	}
	return resp, nil
}

// Peek is Echo without side effects.
func (s *streams) Peek(ctx context.Context, req *demopb.EchoRequest) (*demopb.EchoResponse, error) {
	return s.Echo(ctx, req)
}

// Fail ends as it is told.
func (s *streams) Fail(ctx context.Context, req *demopb.FailRequest) (*demopb.FailResponse, error) {
	answerMetadata(callOf(ctx))
	if req.GetCode() == 0 {
		return &demopb.FailResponse{}, nil
	}
	return nil, status.FromProto(&spb.Status{
		Code:    req.GetCode(),
		Message: req.GetMessage(),
		Details: req.GetDetails(),
	}).Err()
}

// Wait answers after a while, unless the caller goes first.
func (s *streams) Wait(ctx context.Context, req *demopb.WaitRequest) (*demopb.WaitResponse, error) {
	var done <-chan time.Time
	if req.GetDuration() != nil {
		timer := time.NewTimer(req.GetDuration().AsDuration())
		defer timer.Stop()
		done = timer.C
	}
	select {
	case <-done:
		return &demopb.WaitResponse{}, nil
	case <-ctx.Done():
		return nil, status.FromContextError(ctx.Err()).Err()
	}
}

// maxBlob keeps a typing error from taking the machine's memory.
const maxBlob = 400 << 20

// Blob takes bytes and returns others.
func (s *streams) Blob(_ context.Context, req *demopb.BlobRequest) (*demopb.BlobResponse, error) {
	if req.GetSize() < 0 || req.GetSize() > maxBlob {
		return nil, invalid("BlobRequest.Size", "value must be inside range [0, %d]", maxBlob)
	}
	sum := sha256.Sum256(req.GetData())
	data := make([]byte, req.GetSize())
	for i := range data {
		data[i] = byte(i)
	}
	return &demopb.BlobResponse{
		Data:           data,
		Received:       int64(len(req.GetData())),
		ReceivedSha256: sum[:],
	}, nil
}

func (s *streams) count(ctx context.Context, req *demopb.CountRequest, send func(*demopb.CountResponse) error) error {
	answerMetadata(callOf(ctx))
	for n := range req.GetTo() {
		if n > 0 && req.GetPause() != nil {
			if _, err := s.Wait(ctx, &demopb.WaitRequest{Duration: req.GetPause()}); err != nil {
				return err
			}
		}
		if err := send(&demopb.CountResponse{Number: n + 1}); err != nil {
			return err
		}
	}
	if req.GetCode() != 0 {
		return status.Errorf(codes.Code(req.GetCode()), "counted to %d", req.GetTo())
	}
	return nil
}

func (s *streams) sum(ctx context.Context, receive func() (*demopb.SumRequest, error)) (*demopb.SumResponse, error) {
	answerMetadata(callOf(ctx))
	resp := &demopb.SumResponse{}
	for {
		req, err := receive()
		if errors.Is(err, io.EOF) {
			return resp, nil
		}
		if err != nil {
			return nil, err
		}
		resp.Sum += req.GetValue()
		resp.Count++
	}
}

func (s *streams) chat(ctx context.Context, receive func() (*demopb.ChatRequest, error), send func(*demopb.ChatResponse) error) error {
	answerMetadata(callOf(ctx))
	for n := uint32(1); ; n++ {
		req, err := receive()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		if err := send(&demopb.ChatResponse{Text: req.GetText(), Number: n}); err != nil {
			return err
		}
	}
}

// answerMetadata sends the headers and trailers that the caller asked for.
func answerMetadata(c *call) {
	for k, values := range c.md {
		for _, v := range values {
			if name, ok := strings.CutPrefix(k, sendHeaderPrefix); ok {
				c.setHeader(name, v)
			}
			if name, ok := strings.CutPrefix(k, sendTrailerPrefix); ok {
				c.setTrailer(name, v)
			}
		}
	}
}

// grpcStreams serves StreamService over gRPC.
type grpcStreams struct {
	demopb.UnsafeStreamServiceServer
	streams
}

// Count counts, one message per number.
func (g *grpcStreams) Count(req *demopb.CountRequest, out grpc.ServerStreamingServer[demopb.CountResponse]) error {
	return g.count(out.Context(), req, out.Send)
}

// Sum adds up what it is sent.
func (g *grpcStreams) Sum(in grpc.ClientStreamingServer[demopb.SumRequest, demopb.SumResponse]) error {
	resp, err := g.sum(in.Context(), in.Recv)
	if err != nil {
		return err
	}
	return in.SendAndClose(resp)
}

// Chat answers every message as it comes.
func (g *grpcStreams) Chat(both grpc.BidiStreamingServer[demopb.ChatRequest, demopb.ChatResponse]) error {
	return g.chat(both.Context(), both.Recv, both.Send)
}

// routes is RouteService: every method returns its request.
type routes struct {
	demopb.UnimplementedRouteServiceServer
}

func routed(method string, req *demopb.BookRequest) (*demopb.BookResponse, error) {
	return &demopb.BookResponse{
		Method:  "/execgate.demo.v1.RouteService/" + method,
		Request: req,
		Book:    req.GetBook(),
	}, nil
}

// GetBook has a path of several segments, and a second route.
func (r *routes) GetBook(_ context.Context, req *demopb.BookRequest) (*demopb.BookResponse, error) {
	return routed("GetBook", req)
}

// ListBooks has a variable between fixed segments.
func (r *routes) ListBooks(_ context.Context, req *demopb.BookRequest) (*demopb.BookResponse, error) {
	return routed("ListBooks", req)
}

// NewestBook has a fixed path where another route has a variable.
func (r *routes) NewestBook(_ context.Context, req *demopb.BookRequest) (*demopb.BookResponse, error) {
	return routed("NewestBook", req)
}

// GetFile has a path of any depth.
func (r *routes) GetFile(_ context.Context, req *demopb.BookRequest) (*demopb.BookResponse, error) {
	return routed("GetFile", req)
}

// CreateBook has one field as its body, and one as its answer.
func (r *routes) CreateBook(_ context.Context, req *demopb.BookRequest) (*demopb.BookResponse, error) {
	return routed("CreateBook", req)
}

// UpdateBook has a second route with another verb and body.
func (r *routes) UpdateBook(_ context.Context, req *demopb.BookRequest) (*demopb.BookResponse, error) {
	return routed("UpdateBook", req)
}

// ArchiveBook has a path that ends in a verb.
func (r *routes) ArchiveBook(_ context.Context, req *demopb.BookRequest) (*demopb.BookResponse, error) {
	return routed("ArchiveBook", req)
}
