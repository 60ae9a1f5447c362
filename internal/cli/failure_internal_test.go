package cli

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
)

// saying is a gateway that has one answer to everything.
type saying struct {
	gatewaypb.UnimplementedGatewayServiceServer
	answer func(ctx context.Context) error
}

func (s *saying) GetSwitches(ctx context.Context, _ *gatewaypb.GetSwitchesRequest) (*gatewaypb.GetSwitchesResponse, error) {
	return nil, s.answer(ctx)
}

func TestErrorsSayWhatToTry(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		answer     func(ctx context.Context) error
		want, hint string
	}{
		"the store is away": {
			func(context.Context) error { return status.Error(codes.Unavailable, "the store cannot be reached") },
			"the store cannot be reached", "",
		},
		"too slow": {
			func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() },
			"no answer from http://", "--request-timeout",
		},
		"an older gateway": {
			func(context.Context) error { return status.Error(codes.Unimplemented, "unknown method") },
			"does not know this call: /execgate.v1.GatewayService/GetSwitches", "same version",
		},
		"no permission": {
			func(context.Context) error { return status.Error(codes.PermissionDenied, "no") },
			"no", "the token needs the permission gateway.read",
		},
		"a denied endpoint": {
			func(context.Context) error {
				return status.Error(codes.InvalidArgument, "Errors.Target.DeniedURL (COMMAND-NcJUKo)")
			},
			"COMMAND-NcJUKo", "targetclient.allow_list",
		},
		"the feature is off": {
			func(context.Context) error {
				return status.Error(codes.FailedPrecondition, `Feature "Action" is not enabled (ACTION-8o6pvqfjhs)`)
			},
			"not enabled", "admin.actions_enabled",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			listener, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				t.Fatal(err)
			}
			server := grpc.NewServer()
			gatewaypb.RegisterGatewayServiceServer(server, &saying{answer: c.answer})
			served := make(chan struct{})
			go func() { defer close(served); _ = server.Serve(listener) }()
			t.Cleanup(func() { server.Stop(); <-served })

			client, err := (&connection{url: "http://" + listener.Addr().String(), timeout: 200 * time.Millisecond}).open()
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(client.close)
			client.wanting.Store(true) // as after a server that takes certificates and does not need them
			_, err = client.gateway.GetSwitches(t.Context(), &gatewaypb.GetSwitchesRequest{})
			text, hint, _ := strings.Cut(err.Error(), "\n")
			if !strings.Contains(text, c.want) || !strings.Contains(hint, c.hint) || c.hint == "" && hint != "" {
				t.Errorf("got %q and the hint %q", text, hint)
			}
		})
	}
}

func TestASuggestionIsALineOfItsOwn(t *testing.T) {
	t.Parallel()
	f := &Failure{Err: errors.New("no")}
	f.suggest("try this")
	if got, want := f.Error(), "no\ntry this"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	f.suggest("or that")
	if got, want := f.Error(), "no\ntry this\nor that"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}
