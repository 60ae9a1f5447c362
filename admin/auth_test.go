package admin_test

import (
	"bytes"
	"log/slog"
	"slices"
	"strings"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/execgate/execgate/admin"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
)

func withTokens(tokens ...admin.Token) func(*admin.Options) {
	return func(o *admin.Options) { o.Tokens = append(o.Tokens, tokens...) }
}

func token(name string, permissions ...string) admin.Token {
	return admin.Token{Name: name, SHA256: admin.HashToken(name), Permissions: permissions}
}

// permissionRows has every RPC with the permissions that each suffice; none: any authenticated caller.
var permissionRows = []struct {
	req     proto.Message
	suffice []string
}{
	{&actionv3.CreateTargetRequest{}, []string{"action.target.write"}},
	{&actionv3.PatchTargetRequest{}, []string{"action.target.write"}},
	{&actionv3.DeleteTargetRequest{}, []string{"action.target.delete"}},
	{&actionv3.GetTargetRequest{}, []string{"action.target.read"}},
	{&actionv3.SearchTargetsRequest{}, []string{"action.target.read"}},
	{&actionv3.PutExecutionRequest{}, []string{"action.execution.write"}},
	{&actionv3.DeleteExecutionRequest{}, []string{"action.execution.delete", "action.execution.write"}},
	{&actionv3.SearchExecutionsRequest{}, []string{"execution.read", "action.execution.read"}},
	{&actionv3.ListAvailableExecutionFunctionsRequest{}, []string{"execution.read", "action.execution.read"}},
	{&actionv3.ListAvailableExecutionMethodsRequest{}, []string{"execution.read", "action.execution.read"}},
	{&actionv3.ListAvailableExecutionServicesRequest{}, []string{"execution.read", "action.execution.read"}},

	{&actionv2.CreateTargetRequest{}, []string{"action.target.write"}},
	{&actionv2.UpdateTargetRequest{}, []string{"action.target.write"}},
	{&actionv2.DeleteTargetRequest{}, []string{"action.target.delete"}},
	{&actionv2.GetTargetRequest{}, []string{"action.target.read"}},
	{&actionv2.ListTargetsRequest{}, []string{"action.target.read"}},
	{&actionv2.AddPublicKeyRequest{}, []string{"action.target.write"}},
	{&actionv2.ActivatePublicKeyRequest{}, []string{"action.target.write"}},
	{&actionv2.DeactivatePublicKeyRequest{}, []string{"action.target.write"}},
	{&actionv2.RemovePublicKeyRequest{}, []string{"action.target.write"}},
	{&actionv2.ListPublicKeysRequest{}, []string{"action.target.read"}},
	{&actionv2.SetExecutionRequest{}, []string{"action.execution.write"}},
	{&actionv2.ListExecutionsRequest{}, []string{"action.execution.read"}},
	{&actionv2.ListExecutionFunctionsRequest{}, nil},
	{&actionv2.ListExecutionMethodsRequest{}, nil},
	{&actionv2.ListExecutionServicesRequest{}, nil},
}

var allPermissions = []string{
	"action.target.read", "action.target.write", "action.target.delete",
	"action.execution.read", "action.execution.write", "action.execution.delete", "execution.read",
}

func TestEveryMethodAsksForItsPermissionBeforeItLooksAtTheRequest(t *testing.T) {
	t.Parallel()
	tokens := []admin.Token{
		token("nothing"), token("all of action", "action.*"), token("all of execution", "execution.*"), token("everything", "*"),
		token("both", "action.*", "execution.*"), token("no wildcard", "action", "act*", "*.read", "action.target", "Action.*"),
	}
	for _, p := range allPermissions {
		tokens = append(tokens, token("only "+p, p), token("all but "+p, slices.DeleteFunc(slices.Clone(allPermissions), func(q string) bool { return q == p })...))
	}
	f := start(t, withTokens(tokens...))
	for _, row := range permissionRows {
		for _, tok := range tokens {
			allowed := len(row.suffice) == 0
			for _, p := range row.suffice {
				allowed = allowed || slices.Contains(tok.Permissions, p) || slices.Contains(tok.Permissions, "*") ||
					slices.Contains(tok.Permissions, "action.*") && strings.HasPrefix(p, "action.") ||
					slices.Contains(tok.Permissions, "execution.*") && strings.HasPrefix(p, "execution.")
			}
			f.token = tok.Name
			_, out := f.call(overGRPC, row.req) // the request is empty: its ids are invalid
			if !allowed {
				wantError(t, overGRPC, out, codes.PermissionDenied, "AUTH-5mWD2", "No matching permissions found")
			}
			if refused := out.code == codes.PermissionDenied; refused == allowed {
				t.Errorf("%T with %s: %v %s", row.req, tok.Name, out.code, out.message)
			}
		}
	}
}

func TestWhoMayNotCallHearsThatBeforeTheFaultsOfAConnectBody(t *testing.T) {
	t.Parallel()
	f := start(t, withTokens(token("reader", "action.target.read")))
	for tok, want := range map[string]string{"": "unauthenticated", "wrong": "unauthenticated", "reader": "permission_denied", rootToken: "invalid_argument"} {
		f.token = tok
		for _, row := range [][2]string{
			{actionv3.ZITADELActions_CreateTarget_FullMethodName, "{"}, {actionv2.ActionService_SetExecution_FullMethodName, `{"targets":1}`},
			{"/execgate.v1.GatewayService/SetSwitches", "[]"},
		} {
			res, body := f.do("POST", row[0], "application/json", []byte(row[1]))
			if !strings.Contains(string(body), `"code":"`+want+`"`) {
				t.Errorf("token %q, %s: %d %s, want %s", tok, row[0], res.StatusCode, body, want)
			}
			if detailed := strings.Contains(string(body), "zitadel.v1.ErrorDetail"); detailed != (want == "permission_denied") {
				t.Errorf("token %q, %s: %s", tok, row[0], body)
			}
		}
	}
}

func TestAuthenticationIsTheSameOverEveryProtocol(t *testing.T) {
	t.Parallel()
	each(t, allProtocols, func(t *testing.T, p protocol) {
		f := start(t, withTokens(token("reader", "action.target.read"), token("nobody")))
		for _, req := range []proto.Message{
			&actionv3.CreateTargetRequest{}, &actionv2.CreateTargetRequest{},
			&actionv3.ListAvailableExecutionMethodsRequest{}, &actionv2.ListExecutionMethodsRequest{},
		} {
			f.token = ""
			_, out := f.call(p, req)
			wantError(t, p, out, codes.Unauthenticated, "", "auth header missing")
			f.token = "wrong"
			_, out = f.call(p, req)
			wantError(t, p, out, codes.Unauthenticated, "", "token")
			if strings.Contains(out.message+out.body, "wrong") {
				t.Errorf("the token is in the answer: %+v", out)
			}
			f.token = "reader"
			if _, isV2List := req.(*actionv2.ListExecutionMethodsRequest); isV2List {
				if _, out = f.call(p, req); out.code != codes.OK {
					t.Errorf("%T: %+v", req, out)
				}
				continue
			}
			_, out = f.call(p, req)
			wantError(t, p, out, codes.PermissionDenied, "AUTH-5mWD2", "No matching permissions found")
		}
		f.token = "reader"
		if _, out := f.call(p, targets()); out.code != codes.OK {
			t.Errorf("%+v", out)
		}
	})
}

func TestOtherAuthorizationHeaders(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.token = ""
	for header, want := range map[string]int{
		"Bearer " + rootToken:       200,
		"bearer " + rootToken:       200,
		"Bearer  " + rootToken:      200,
		"Basic " + rootToken:        401,
		rootToken:                   401,
		"Bearer":                    401,
		"Bearer ":                   401,
		"Bearer " + rootToken[1:]:   401,
		"Bearer " + rootToken + "x": 401,
	} {
		res, body := f.do("GET", "/v2/actions/executions/functions", "", nil, "Authorization", header)
		if res.StatusCode != want {
			t.Errorf("%q: %d %s", header, res.StatusCode, body)
		}
		if want == 401 && res.Header.Get("WWW-Authenticate") != "Bearer" {
			t.Errorf("%q: WWW-Authenticate %q", header, res.Header.Get("WWW-Authenticate"))
		}
	}
}

func TestManyFailedAuthenticationsAreRefusedButGoodTokensGoOn(t *testing.T) {
	t.Parallel()
	each(t, allProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		if _, out := f.call(p, targets()); out.code != codes.OK {
			t.Fatalf("%+v", out)
		}
		f.token = "guess"
		var out outcome
		for range 500 {
			if _, out = f.call(p, targets()); out.code == codes.ResourceExhausted {
				break
			}
		}
		wantError(t, p, out, codes.ResourceExhausted, "", "too many failed authentications")
		f.token = rootToken
		if _, out := f.call(p, targets()); out.code != codes.OK {
			t.Errorf("a token that was good before: %+v", out)
		}
	})
}

func TestWithoutTokensEverybodyMayDoEverything(t *testing.T) {
	t.Parallel()
	each(t, allProtocols, func(t *testing.T, p protocol) {
		f := start(t, func(o *admin.Options) { o.Tokens = nil })
		for _, tok := range []string{"", "whatever a client sends"} {
			f.token = tok
			if _, out := f.call(p, newTarget("by "+tok)); out.code != codes.OK {
				t.Errorf("token %q: %+v", tok, out)
			}
		}
	})
}

func TestWithoutTokensOtherSitesInABrowserAreRefused(t *testing.T) {
	t.Parallel()
	f := start(t, func(o *admin.Options) { o.Tokens = nil })
	f.token = ""
	const rest, connect = "/v2/actions/executions/functions", "/zitadel.action.v2.ActionService/ListExecutionFunctions"
	send := func(origin, host string) (int, int) {
		t.Helper()
		status := func(method, path, body string) int {
			req := newRequest(t, method, "http://"+f.address+path, body)
			if origin != "" {
				req.Header.Set("Origin", origin)
			}
			if host != "" {
				req.Host = host
			}
			res, err := f.http.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			_ = res.Body.Close()
			return res.StatusCode
		}
		return status("GET", rest, ""), status("POST", connect, "{}")
	}
	for name, row := range map[string]struct {
		origin, host string
		want         int
	}{
		"no browser":                    {want: 200},
		"a name of this machine":        {host: "localhost:8081", want: 200},
		"a name below localhost":        {host: "gw.localhost", want: 200},
		"a name without a dot":          {host: "execgate:8081", want: 200},
		"an IPv6 address":               {host: "[::1]:8081", want: 200},
		"the own site":                  {origin: "http://" + f.address, want: 200},
		"another site":                  {origin: "https://evil.example.com", want: 403},
		"an opaque origin":              {origin: "null", want: 403},
		"another port of this machine":  {origin: "http://127.0.0.1:1", want: 403},
		"a name that resolves to us":    {host: "evil.example.com", want: 403},
		"both the same, but not local":  {origin: "http://evil.example.com", host: "evil.example.com", want: 403},
		"a name that looks like us":     {host: "localhost.evil.example.com", want: 403},
		"a name that ends like an addr": {host: "127.0.0.1.evil.example.com:80", want: 403},
	} {
		if rest, connect := send(row.origin, row.host); rest != row.want || connect != row.want {
			t.Errorf("%s: REST %d, Connect %d, want %d", name, rest, connect, row.want)
		}
	}
	withToken := start(t)
	if res, body := withToken.do("GET", rest, "", nil, "Origin", "https://console.example.com"); res.StatusCode != 200 {
		t.Errorf("with a token: %d %s", res.StatusCode, body)
	}
}

func TestTheActionsFeatureTurnsOffTheManagementOfV3alphaOnly(t *testing.T) {
	t.Parallel()
	off := func(o *admin.Options) { o.ActionsDisabled = true }
	each(t, tableProtocols, func(t *testing.T, p protocol) {
		f := start(t, off, withTokens(token("nobody")))
		for _, row := range permissionRows {
			_, out := f.call(p, valid(row.req))
			if strings.HasPrefix(string(methodOf(t, row.req).FullName()), "zitadel.action.v2") {
				if out.detail.GetId() == "ACTION-8o6pvqfjhs" {
					t.Errorf("%T: %+v", row.req, out)
				}
				continue
			}
			wantError(t, p, out, codes.FailedPrecondition, "ACTION-8o6pvqfjhs", `Feature "Action" is not enabled`)
		}
		// Fields come before the flag, the rules of the commands after it.
		_, out := f.call(p, createWith(func(t *actionv3.Target) { t.TargetType = nil })(f))
		wantError(t, p, out, codes.InvalidArgument, "", "target_type")
		_, out = f.call(p, createWith(func(t *actionv3.Target) { t.Name = "" })(f))
		wantError(t, p, out, codes.FailedPrecondition, "ACTION-8o6pvqfjhs", `Feature "Action" is not enabled`)
		f.token = "nobody"
		_, out = f.call(p, targets())
		wantError(t, p, out, codes.PermissionDenied, "AUTH-5mWD2", "No matching permissions found")
	})
}

// valid fills an empty request of v3alpha so that its fields are valid.
func valid(req proto.Message) proto.Message {
	switch req.(type) {
	case *actionv3.CreateTargetRequest:
		return newTarget("a")
	case *actionv3.PatchTargetRequest:
		return &actionv3.PatchTargetRequest{Id: "1", Target: &actionv3.PatchTarget{}}
	case *actionv3.DeleteTargetRequest:
		return &actionv3.DeleteTargetRequest{Id: "1"}
	case *actionv3.GetTargetRequest:
		return &actionv3.GetTargetRequest{Id: "1"}
	case *actionv3.PutExecutionRequest:
		return putRequest(requestAll(), []string{"1"})
	case *actionv3.DeleteExecutionRequest:
		return &actionv3.DeleteExecutionRequest{Id: "request"}
	case *actionv2.GetTargetRequest:
		return &actionv2.GetTargetRequest{Id: "1"}
	case *actionv2.DeleteTargetRequest:
		return &actionv2.DeleteTargetRequest{Id: "1"}
	case *actionv2.UpdateTargetRequest:
		return &actionv2.UpdateTargetRequest{Id: "1"}
	case *actionv2.AddPublicKeyRequest, *actionv2.ListPublicKeysRequest:
		return newTargetV2("a")
	case *actionv2.ActivatePublicKeyRequest:
		return &actionv2.ActivatePublicKeyRequest{TargetId: "1", KeyId: "1"}
	case *actionv2.DeactivatePublicKeyRequest:
		return &actionv2.DeactivatePublicKeyRequest{TargetId: "1", KeyId: "1"}
	case *actionv2.RemovePublicKeyRequest:
		return &actionv2.RemovePublicKeyRequest{TargetId: "1", KeyId: "1"}
	}
	return req
}

func TestNoSecretIsLogged(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	f := start(t, func(o *admin.Options) {
		o.Logger = slog.New(slog.NewJSONHandler(&log, &slog.HandlerOptions{Level: slog.LevelDebug}))
	})
	created := f.must(newTargetV2("a")).(*actionv2.CreateTargetResponse)
	f.token = "a-secret-guess"
	f.call(overREST, targets())
	f.call(overGRPC, targets())
	for _, secret := range []string{created.GetSigningKey(), "a-secret-guess", rootToken} {
		if strings.Contains(log.String(), secret) {
			t.Errorf("log has a secret: %s", log.String())
		}
	}
}

func TestTheFirstAuthorizationValueCounts(t *testing.T) {
	t.Parallel()
	f := start(t)
	ctx := metadata.AppendToOutgoingContext(t.Context(), "authorization", "Bearer "+rootToken, "authorization", "Bearer other")
	res := new(actionv2.ListExecutionFunctionsResponse)
	if err := f.conn.Invoke(ctx, actionv2.ActionService_ListExecutionFunctions_FullMethodName, &actionv2.ListExecutionFunctionsRequest{}, res, grpc.WaitForReady(true)); err != nil {
		t.Error(err)
	}
}

func TestOptionsThatAreRefused(t *testing.T) {
	t.Parallel()
	f := start(t)
	good := admin.Options{Store: f.replica, InstanceID: "i"}
	for name, change := range map[string]func(*admin.Options){
		"no store":              func(o *admin.Options) { o.Store = nil },
		"no instance":           func(o *admin.Options) { o.InstanceID = "" },
		"a token without name":  func(o *admin.Options) { o.Tokens = []admin.Token{{SHA256: admin.HashToken("x")}} },
		"a token without value": func(o *admin.Options) { o.Tokens = []admin.Token{{Name: "x"}} },
		"an empty token":        func(o *admin.Options) { o.Tokens = []admin.Token{{Name: "x", SHA256: admin.HashToken("")}} },
	} {
		o := good
		change(&o)
		if _, err := admin.New(o); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
