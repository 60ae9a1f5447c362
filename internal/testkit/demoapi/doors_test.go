package demoapi_test

import (
	"bufio"
	"context"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/encoding/gzip"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	reflectionv1 "google.golang.org/grpc/reflection/grpc_reflection_v1"
	reflectionv1alpha "google.golang.org/grpc/reflection/grpc_reflection_v1alpha"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	"github.com/execgate/execgate/gen/execgate/demo/v1/demopbconnect"
	userpb "github.com/execgate/execgate/gen/zitadel/user/v2"
	"github.com/execgate/execgate/gen/zitadel/user/v2/userpbconnect"
	zitadelpb "github.com/execgate/execgate/gen/zitadel/v1"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/internal/testkit/demoapi"
)

const ada = `{"username":"ada","profile":{"givenName":"Ada","familyName":"Lovelace"},"email":{"email":"ada@example.com","isVerified":true}}`

func TestEveryDoorLeadsToTheSameUsers(t *testing.T) {
	t.Parallel()
	for name, certs := range map[string]*testkit.Certificates{"plain": nil, "TLS": testkit.NewCertificates(t)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			var mu sync.Mutex
			var seen []string
			b := setupTLS(t, demoapi.Options{OnRequest: func(r demoapi.Request) {
				mu.Lock()
				defer mu.Unlock()
				seen = append(seen, r.Protocol+" "+r.Method)
				if r.Host == "" || r.Metadata == nil {
					t.Errorf("request without host or metadata: %+v", r)
				}
			}}, certs)

			code, body, _ := b.do(t, "POST", "/v2/users/human", ada)
			if code != 200 {
				t.Fatalf("REST: %d %s", code, body)
			}
			var added struct{ UserID string }
			if err := json.Unmarshal([]byte(body), &added); err != nil || added.UserID == "" {
				t.Fatalf("answer %s: %v", body, err)
			}
			req := &userpb.GetUserByIDRequest{UserId: added.UserID}

			overGRPC, err := userpb.NewUserServiceClient(b.conn).GetUserByID(t.Context(), req)
			if err != nil {
				t.Fatal(err)
			}
			for mode, o := range map[string]connect.ClientOption{
				"binary": connect.WithClientOptions(), "json": connect.WithProtoJSON(), "web": connect.WithGRPCWeb(), "grpc": connect.WithGRPC(),
			} {
				for _, c := range []*http.Client{b.http, b.h2} {
					if mode == "grpc" && c == b.http {
						continue
					}
					got, err := userpbconnect.NewUserServiceClient(c, b.url(""), o).GetUserByID(t.Context(), req)
					if err != nil || !proto.Equal(got, overGRPC) {
						t.Errorf("%s: %v, %v", mode, got, err)
					}
				}
			}
			text := webText(t, b, "/zitadel.user.v2.UserService/GetUserByID", req)
			got := &userpb.GetUserByIDResponse{}
			if err := proto.Unmarshal(text, got); err != nil || !proto.Equal(got, overGRPC) {
				t.Errorf("gRPC-Web text: %v, %v", got, err)
			}

			mu.Lock()
			defer mu.Unlock()
			const method = " /zitadel.user.v2.UserService/"
			for _, want := range []string{"rest" + method + "AddHumanUser", "grpc" + method + "GetUserByID", "connect" + method + "GetUserByID", "grpc_web" + method + "GetUserByID"} {
				if !slices.Contains(seen, want) {
					t.Errorf("%q was not seen, but %q", want, seen)
				}
			}
		})
	}
}

// webText makes a call in gRPC-Web's text form and returns the message.
func webText(t *testing.T, b *bundle, method string, req proto.Message) []byte {
	t.Helper()
	msg, err := proto.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	frame := append(binary.BigEndian.AppendUint32([]byte{0}, uint32(len(msg))), msg...)
	code, body, header := b.do(t, "POST", method, base64.StdEncoding.EncodeToString(frame),
		"Content-Type", "application/grpc-web-text", "X-Grpc-Web", "1", "Origin", "https://console.example")
	if code != 200 || header.Get("Access-Control-Allow-Origin") == "" {
		t.Fatalf("gRPC-Web text: %d %v", code, header)
	}
	// Every flush starts a new base64 string.
	var raw []byte
	for len(body) > 0 {
		chunk := body[:4]
		body = body[4:]
		part, err := base64.StdEncoding.DecodeString(chunk)
		if err != nil {
			t.Fatal(err)
		}
		raw = append(raw, part...)
	}
	n := binary.BigEndian.Uint32(raw[1:5])
	if trailer := string(raw[5+n+5:]); raw[5+n]&0x80 == 0 || !strings.Contains(strings.ToLower(trailer), "grpc-status: 0") && !strings.Contains(strings.ToLower(trailer), "grpc-status:0") {
		t.Fatalf("trailer frame is %q", trailer)
	}
	return raw[5 : 5+n]
}

func TestEveryKindOfStream(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	ctx := t.Context()
	t.Run("grpc", func(t *testing.T) {
		t.Parallel()
		c := demopb.NewStreamServiceClient(b.conn)
		counting, err := c.Count(ctx, &demopb.CountRequest{To: 3, Code: int32(codes.OutOfRange)})
		if err != nil {
			t.Fatal(err)
		}
		for want := uint32(1); want <= 3; want++ {
			if m, err := counting.Recv(); err != nil || m.GetNumber() != want {
				t.Errorf("number %d: %v, %v", want, m, err)
			}
		}
		_, err = counting.Recv()
		wantCode(t, err, codes.OutOfRange)

		summing, err := c.Sum(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for v := range int64(4) {
			if err := summing.Send(&demopb.SumRequest{Value: v}); err != nil {
				t.Fatal(err)
			}
		}
		if sum, err := summing.CloseAndRecv(); err != nil || sum.GetSum() != 6 || sum.GetCount() != 4 {
			t.Errorf("sum: %v, %v", sum, err)
		}

		chat, err := c.Chat(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"a", "b"} {
			if err := chat.Send(&demopb.ChatRequest{Text: text}); err != nil {
				t.Fatal(err)
			}
			if m, err := chat.Recv(); err != nil || m.GetText() != text {
				t.Errorf("chat: %v, %v", m, err)
			}
		}
		_ = chat.CloseSend()
		if _, err := chat.Recv(); !errors.Is(err, io.EOF) {
			t.Errorf("end of chat: %v", err)
		}
	})
	t.Run("connect", func(t *testing.T) {
		t.Parallel()
		c := demopbconnect.NewStreamServiceClient(b.h2, b.url(""))
		counting, err := c.Count(ctx, &demopb.CountRequest{To: 2, Code: int32(codes.Aborted)})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for counting.Receive() {
			n++
		}
		if n != 2 || connect.CodeOf(counting.Err()) != connect.CodeAborted {
			t.Errorf("counted %d, %v", n, counting.Err())
		}
		_ = counting.Close()

		summing, err := c.Sum(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = summing.Send(&demopb.SumRequest{Value: 5})
		if sum, err := summing.CloseAndReceive(); err != nil || sum.GetSum() != 5 {
			t.Errorf("sum: %v, %v", sum, err)
		}

		chat, err := c.Chat(ctx)
		if err != nil {
			t.Fatal(err)
		}
		_ = chat.Send(&demopb.ChatRequest{Text: "hello"})
		if m, err := chat.Receive(); err != nil || m.GetText() != "hello" {
			t.Errorf("chat: %v, %v", m, err)
		}
		_ = chat.CloseRequest()
		_ = chat.CloseResponse()
	})
	t.Run("rest", func(t *testing.T) {
		t.Parallel()
		code, body, _ := b.do(t, "GET", "/demo/v1/count/2", "")
		if code != 200 || strings.Count(body, "\n") != 2 || !strings.Contains(body, `"number":2`) {
			t.Errorf("%d %s", code, body)
		}
	})
}

func TestMetadataBothWays(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	ctx := metadata.AppendToOutgoingContext(t.Context(),
		"x-many", "1", "x-many", "2", "x-raw-bin", "\x00\xff",
		"x-send-header-h", "head", "x-send-trailer-t-bin", "\x01\x02")
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	var header, trailer metadata.MD
	resp, err := demopb.NewStreamServiceClient(b.conn).Echo(ctx, &demopb.EchoRequest{Text: "x"}, grpc.Header(&header), grpc.Trailer(&trailer), grpc.UseCompressor(gzip.Name))
	if err != nil {
		t.Fatal(err)
	}
	if got := resp.GetMetadata()["x-many"].GetValues(); !slices.Equal(got, []string{"1", "2"}) {
		t.Errorf("repeated key came as %q", got)
	}
	if got := resp.GetMetadata()["x-raw-bin"].GetValues(); !slices.Equal(got, []string{"AP8="}) {
		t.Errorf("binary key came as %q", got)
	}
	if got := header.Get("h"); !slices.Equal(got, []string{"head"}) {
		t.Errorf("header is %q", got)
	}
	if got := trailer.Get("t-bin"); !slices.Equal(got, []string{"\x01\x02"}) {
		t.Errorf("trailer is %q", got)
	}
	if left := resp.GetTimeLeft().AsDuration(); left <= 0 || left > time.Minute {
		t.Errorf("time left is %v", left)
	}

	// Connect, also as a GET.
	web := demopbconnect.NewStreamServiceClient(b.http, b.url(""), connect.WithHTTPGet())
	cctx, info := connect.NewClientContext(t.Context())
	info.RequestHeader().Set("X-Send-Header-H", "head")
	info.RequestHeader().Set("X-Send-Trailer-T", "tail")
	got, err := web.Peek(cctx, &demopb.EchoRequest{Text: "x"})
	if err != nil || got.GetProtocol() != demoapi.ProtocolConnect || got.GetHost() != b.addr {
		t.Errorf("connect: %v, %v", got, err)
	}
	if info.HTTPMethod() != http.MethodGet || info.ResponseHeader().Get("H") != "head" || info.ResponseTrailer().Get("T") != "tail" {
		t.Errorf("%s %v %v", info.HTTPMethod(), info.ResponseHeader(), info.ResponseTrailer())
	}
}

func TestErrorsKeepTheirDetails(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	detail, err := anypb.New(&zitadelpb.ErrorDetail{Id: "A-1", Message: "no"})
	if err != nil {
		t.Fatal(err)
	}
	req := &demopb.FailRequest{Code: int32(codes.PermissionDenied), Message: "no (A-1)", Details: []*anypb.Any{detail}}
	_, err = demopb.NewStreamServiceClient(b.conn).Fail(t.Context(), req)
	wantCode(t, err, codes.PermissionDenied)
	if n := len(status.Convert(err).Details()); n != 1 {
		t.Errorf("gRPC: %d details", n)
	}
	for mode, o := range map[string]connect.ClientOption{"connect": connect.WithClientOptions(), "web": connect.WithGRPCWeb()} {
		_, err = demopbconnect.NewStreamServiceClient(b.http, b.url(""), o).Fail(t.Context(), req)
		ce := new(connect.Error)
		if !errors.As(err, &ce) || ce.Code() != connect.CodePermissionDenied || ce.Message() != "no (A-1)" || len(ce.Details()) != 1 {
			t.Errorf("%s: %v", mode, err)
		}
	}
	code, body, _ := b.do(t, "POST", "/demo/v1/fail",
		`{"code":7,"message":"no","details":[{"@type":"type.googleapis.com/zitadel.v1.ErrorDetail","id":"A-1"}]}`)
	if code != 403 || !strings.Contains(body, `"code":7`) || !strings.Contains(strings.ReplaceAll(body, " ", ""), `"id":"A-1"`) {
		t.Errorf("REST: %d %s", code, body)
	}
}

func TestRESTBehavesLikeTheRealThing(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	for name, test := range map[string]struct {
		method, path, body string
		code               int
		want               string // part of the answer, spaces taken out
	}{
		"unknown user":             {"GET", "/v2/users/42", "", 404, `"code":5`},
		"wrong verb":               {"GET", "/v2/users", "", 405, `"code":12`},
		"unknown path":             {"GET", "/v2/nothing", "", 404, `"code":5`},
		"unknown field is ignored": {"POST", "/v2/users", `{"nonsense":1}`, 200, `"details"`},
		"proto names are accepted": {"POST", "/v2/users", `{"sorting_column":"USER_FIELD_NAME_EMAIL"}`, 200, `"sortingColumn":"USER_FIELD_NAME_EMAIL"`},
		"enum by number":           {"POST", "/v2/users", `{"sortingColumn":6}`, 200, `"sortingColumn":"USER_FIELD_NAME_EMAIL"`},
		"bad JSON":                 {"POST", "/v2/users", `{`, 400, `"code":3`},
		"validation":               {"POST", "/v2/users/human", `{}`, 400, `"code":3`},
		"admin, under its base":    {"GET", "/admin/v1/healthz", "", 200, `{}`},
		"admin, without its base":  {"GET", "/healthz", "", 404, ``},
		"event types":              {"POST", "/admin/v1/events/types/_search", ``, 200, `user.human.added`},
		"both ends of time":        {"POST", "/admin/v1/events/_search", `{"range":{},"from":"2026-01-01T00:00:00Z"}`, 400, `"code":3`},
		"delete with a body":       {"DELETE", "/v2/sessions/42", `{"sessionToken":"x"}`, 404, `"code":5`},
		"query parameters":         {"GET", "/demo/v1/echo/hi?words=a&words=b&nested.child.name=n&colour=COLOUR_GREEN&length=1.5s&flag=false", "", 200, `"words":["a","b"],"nested":{"child":{"name":"n"}},"colour":"COLOUR_GREEN","flag":false,"length":"1.500s"`},
		"path with slashes":        {"GET", "/demo/v1/shelves/1/books/2", "", 200, `"name":"shelves/1/books/2"`},
		"second binding":           {"GET", "/demo/v1/books/7", "", 200, `"id":"7"`},
		"fixed before free":        {"GET", "/demo/v1/books/newest", "", 200, `NewestBook`},
		"deep wildcard":            {"GET", "/demo/v1/files/a/b/c", "", 200, `"name":"a/b/c"`},
		"verb":                     {"POST", "/demo/v1/books/7:archive", "{}", 200, `ArchiveBook`},
		"body and response body":   {"POST", "/demo/v1/shelves/s/books?number=9", `{"title":"T"}`, 200, `{"title":"T"}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			code, body, _ := b.do(t, test.method, test.path, test.body)
			if code != test.code || !strings.Contains(strings.ReplaceAll(body, " ", ""), test.want) {
				t.Errorf("%d %s, want %d with %s", code, body, test.code, test.want)
			}
		})
	}
}

func TestConnectServesTheV2ServicesOnly(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	for path, want := range map[string]int{
		"/zitadel.user.v2.UserService/ListUsers": 200,
		"/zitadel.user.v2.UserService/Nothing":   404,
		"/zitadel.admin.v1.AdminService/Healthz": 404,
	} {
		if code, body, _ := b.do(t, "POST", path, "{}", "Content-Type", "application/json"); code != want {
			t.Errorf("%s: %d %s, want %d", path, code, body, want)
		}
	}
}

func TestTokens(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{Tokens: map[string]string{"s3cret": "u-7"}})
	c := userpb.NewUserServiceClient(b.conn)
	_, err := c.ListUsers(t.Context(), &userpb.ListUsersRequest{})
	wantCode(t, err, codes.Unauthenticated)
	for name, test := range map[string]struct {
		header string
		want   int
	}{
		"none":   {"", 401},
		"bad":    {"Bearer nonsense", 401},
		"scheme": {"Basic s3cret", 401},
		"good":   {"Bearer s3cret", 200},
	} {
		for _, path := range []string{"/v2/users", "/zitadel.user.v2.UserService/ListUsers"} {
			header := []string{"Content-Type", "application/json"}
			if test.header != "" {
				header = append(header, "Authorization", test.header)
			}
			if code, body, _ := b.do(t, "POST", path, "{}", header...); code != test.want {
				t.Errorf("%s at %s: %d %s, want %d", name, path, code, body, test.want)
			}
		}
	}
	if code, _, _ := b.do(t, "GET", "/admin/v1/healthz", ""); code != 200 {
		t.Errorf("healthz asks for a token: %d", code)
	}
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer s3cret")
	if _, err := c.AddHumanUser(ctx, person("ada")); err != nil {
		t.Fatal(err)
	}
	_, body, _ := b.do(t, "POST", "/admin/v1/events/_search", "{}", "Authorization", "Bearer s3cret")
	if !strings.Contains(body, "u-7") {
		t.Errorf("the events do not name the caller: %s", body)
	}
}

func TestTenantIsChosenByHost(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{Hosts: []string{"idp.example"}})
	for _, host := range []string{"idp.example", "IDP.example:8443", "other.example"} {
		rest, http := 200, 200
		if host == "other.example" {
			rest, http = 404, 404
		}
		if code, body, _ := b.do(t, "POST", "/v2/users", "{}", "Host", host); code != rest {
			t.Errorf("REST to %s: %d %s", host, code, body)
		}
		if code, body, _ := b.do(t, "POST", "/zitadel.user.v2.UserService/ListUsers", "{}", "Host", host, "Content-Type", "application/json"); code != rest {
			t.Errorf("Connect to %s: %d %s", host, code, body)
		}
		if code, _, _ := b.do(t, "GET", "/ui/login", "", "Host", host); code != http {
			t.Errorf("page of %s: %d", host, code)
		}
	}
	_, err := userpb.NewUserServiceClient(b.conn).ListUsers(t.Context(), &userpb.ListUsersRequest{})
	wantCode(t, err, codes.NotFound)
	conn, err := grpc.NewClient(b.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority("idp.example"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if _, err := userpb.NewUserServiceClient(conn).ListUsers(t.Context(), &userpb.ListUsersRequest{}); err != nil {
		t.Error(err)
	}
}

func TestReflectionAndHealth(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		offer       demoapi.Reflection
		v1, v1alpha codes.Code
	}{
		"both":    {demoapi.ReflectionBoth, codes.OK, codes.OK},
		"v1":      {demoapi.ReflectionV1, codes.OK, codes.Unimplemented},
		"v1alpha": {demoapi.ReflectionV1Alpha, codes.Unimplemented, codes.OK},
		"none":    {demoapi.ReflectionNone, codes.Unimplemented, codes.Unimplemented},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			b := setup(t, demoapi.Options{Reflection: test.offer, Tokens: map[string]string{"a": "b"}, Hosts: []string{"elsewhere"}})
			services, err := listV1(t.Context(), b.conn)
			wantCode(t, err, test.v1)
			if err == nil {
				for _, want := range []string{"zitadel.user.v2.UserService", "zitadel.session.v2.SessionService", "zitadel.admin.v1.AdminService", "execgate.demo.v1.StreamService"} {
					if !slices.Contains(services, want) {
						t.Errorf("%s is not among %q", want, services)
					}
				}
			}
			wantCode(t, listV1Alpha(t.Context(), b.conn), test.v1alpha)
			h, err := healthpb.NewHealthClient(b.conn).Check(t.Context(), &healthpb.HealthCheckRequest{})
			if err != nil || h.GetStatus() != healthpb.HealthCheckResponse_SERVING {
				t.Errorf("health: %v, %v", h, err)
			}
		})
	}
}

func listV1(ctx context.Context, conn *grpc.ClientConn) ([]string, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := reflectionv1.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return nil, err
	}
	_ = stream.Send(&reflectionv1.ServerReflectionRequest{MessageRequest: &reflectionv1.ServerReflectionRequest_ListServices{}})
	resp, err := stream.Recv()
	if err != nil {
		return nil, err
	}
	var names []string
	for _, s := range resp.GetListServicesResponse().GetService() {
		names = append(names, s.GetName())
	}
	return names, nil
}

func listV1Alpha(ctx context.Context, conn *grpc.ClientConn) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stream, err := reflectionv1alpha.NewServerReflectionClient(conn).ServerReflectionInfo(ctx)
	if err != nil {
		return err
	}
	_ = stream.Send(&reflectionv1alpha.ServerReflectionRequest{ //nolint:staticcheck // servers that have nothing newer exist
		MessageRequest: &reflectionv1alpha.ServerReflectionRequest_ListServices{}})
	_, err = stream.Recv()
	return err
}

func TestCancellationReachesTheServer(t *testing.T) {
	t.Parallel()
	got := make(chan struct{}, 1)
	b := setup(t, demoapi.Options{OnRequest: func(demoapi.Request) { got <- struct{}{} }})
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() {
		_, err := demopb.NewStreamServiceClient(b.conn).Wait(ctx, &demopb.WaitRequest{})
		ended <- err
	}()
	<-got
	cancel()
	wantCode(t, <-ended, codes.Canceled)
	// The cleanup stops the server without force, which fails when the call is
	// still being served.
}

func TestBlob(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{})
	c := demopb.NewStreamServiceClient(b.conn)
	resp, err := c.Blob(t.Context(), &demopb.BlobRequest{Data: make([]byte, 5<<20), Size: 7 << 20})
	if err != nil || resp.GetReceived() != 5<<20 || len(resp.GetData()) != 7<<20 {
		t.Errorf("%d received, %d returned, %v", resp.GetReceived(), len(resp.GetData()), err)
	}
	_, err = c.Blob(t.Context(), &demopb.BlobRequest{Size: -1})
	wantCode(t, err, codes.InvalidArgument)
	if _, err := c.Wait(t.Context(), &demopb.WaitRequest{Duration: durationpb.New(time.Millisecond)}); err != nil {
		t.Error(err)
	}
}

func TestPlainWeb(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{Tick: 5 * time.Millisecond})
	code, body, _ := b.do(t, "GET", "/.well-known/openid-configuration", "")
	if code != 200 || !strings.Contains(body, `"issuer":"http://`+b.addr+`"`) {
		t.Errorf("discovery: %d %s", code, body)
	}
	code, body, header := b.do(t, "GET", "/ui/login", "")
	if code != 200 || !strings.Contains(body, "<form") || len(header.Values("Set-Cookie")) != 2 {
		t.Errorf("login: %d %v %s", code, header, body)
	}
	if code, body, _ := b.do(t, "HEAD", "/ui/login", ""); code != 200 || body != "" {
		t.Errorf("HEAD: %d %q", code, body)
	}
	if code, _, _ := b.do(t, "GET", "/debug/healthz", ""); code != 200 {
		t.Errorf("healthz: %d", code)
	}
	if code, _, _ := b.do(t, "GET", "/nothing", ""); code != 404 {
		t.Errorf("nothing: %d", code)
	}
	resp, err := b.http.Get(b.url("/events/stream"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	for ids := 0; ids < 3 && lines.Scan(); {
		if strings.HasPrefix(lines.Text(), "id: ") {
			ids++
		}
	}
	if lines.Err() != nil {
		t.Error(lines.Err())
	}
}

func TestCORS(t *testing.T) {
	t.Parallel()
	b := setup(t, demoapi.Options{AllowOrigin: func(o string) bool { return o == "https://console.example" }})
	for path, headers := range map[string]string{
		"/v2/users":                                   "content-type",
		"/zitadel.user.v2.UserService/ListUsers":      "connect-protocol-version",
		"/zitadel.user.v2.UserService/ListUsers?web=": "x-grpc-web",
	} {
		for origin, allowed := range map[string]bool{"https://console.example": true, "https://evil.example": false} {
			_, _, header := b.do(t, "OPTIONS", path, "", "Origin", origin,
				"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", headers)
			if got := header.Get("Access-Control-Allow-Origin") != ""; got != allowed {
				t.Errorf("preflight of %s from %s: %v", path, origin, header)
			}
		}
	}
}
