package dispatcher_test

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/descriptorpb"

	"github.com/execgate/execgate/conditions"
	"github.com/execgate/execgate/dispatcher"
	"github.com/execgate/execgate/internal/testkit"
	"github.com/execgate/execgate/queue"
	"github.com/execgate/execgate/schema"
	"github.com/execgate/execgate/targetclient"
)

// userSchema has one method, /p.S/M, whose request and response are
// p.User{name = 1: string, age = 2: int32, tags = 3: repeated string}.
func userSchema(t *testing.T) *schema.Schema {
	t.Helper()
	field := func(name string, number int32, label descriptorpb.FieldDescriptorProto_Label, kind descriptorpb.FieldDescriptorProto_Type) *descriptorpb.FieldDescriptorProto {
		return &descriptorpb.FieldDescriptorProto{Name: &name, JsonName: &name, Number: &number, Label: &label, Type: &kind}
	}
	one, many := descriptorpb.FieldDescriptorProto_LABEL_OPTIONAL, descriptorpb.FieldDescriptorProto_LABEL_REPEATED
	text, number := descriptorpb.FieldDescriptorProto_TYPE_STRING, descriptorpb.FieldDescriptorProto_TYPE_INT32
	set, err := proto.Marshal(&descriptorpb.FileDescriptorSet{File: []*descriptorpb.FileDescriptorProto{{
		Name: proto.String("p.proto"), Package: proto.String("p"), Syntax: proto.String("proto3"),
		MessageType: []*descriptorpb.DescriptorProto{{
			Name:  proto.String("User"),
			Field: []*descriptorpb.FieldDescriptorProto{field("name", 1, one, text), field("age", 2, one, number), field("tags", 3, many, text)},
		}},
		Service: []*descriptorpb.ServiceDescriptorProto{{
			Name: proto.String("S"),
			Method: []*descriptorpb.MethodDescriptorProto{{
				Name: proto.String("M"), InputType: proto.String(".p.User"), OutputType: proto.String(".p.User"),
			}},
		}},
	}}})
	if err != nil {
		t.Fatal(err)
	}
	s, err := schema.FromDescriptorSet(set)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// realBundle is a dispatcher with the real client, queue and messages, in front of a
// scripted endpoint.
type realBundle struct {
	*dispatcher.Dispatcher
	endpoint *testkit.Target
	queue    *queue.Memory
	message  *schema.Message
}

func setupReal(t *testing.T, chainTimeout time.Duration) *realBundle {
	t.Helper()
	client, err := targetclient.New(targetclient.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(client.Close)
	b := &realBundle{
		endpoint: testkit.NewTarget(t, testkit.TargetOptions{SigningKey: "secret"}),
		queue:    queue.NewMemory(queue.Options{Caller: client, Logger: slog.New(slog.DiscardHandler)}),
	}
	if err := b.queue.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.queue.Stop(context.Background()) })
	b.message, err = userSchema(t).Method("/p.S/M").Input().DecodeJSON([]byte(`{"name":"<Minnie>","age":30}`))
	if err != nil {
		t.Fatal(err)
	}
	b.Dispatcher = dispatcher.New(dispatcher.Options{
		Caller: client, Queue: b.queue, ChainTimeout: chainTimeout, Logger: slog.New(slog.DiscardHandler),
	})
	return b
}

// plan calls one path of the endpoint after the other.
func (b *realBundle) plan(targets ...*targetclient.Target) *dispatcher.Invocation {
	for _, t := range targets {
		t.URL, t.SigningKeys, t.Timeout = b.endpoint.URL+"/"+t.Name, []string{"secret"}, 10*time.Second
	}
	return &dispatcher.Invocation{
		Plan:       &dispatcher.Plan{Execution: "request", Phase: conditions.Request, Targets: targets},
		FullMethod: "/p.S/M", InstanceID: "default", Request: b.message,
	}
}

func TestRealChain(t *testing.T) {
	t.Parallel()
	b := setupReal(t, 30*time.Second)
	b.endpoint.AnswerPath("/ask", testkit.Answer{Body: `{"name":"Mickey","tags":["a","b"]}`})
	b.endpoint.AnswerPath("/down", testkit.Answer{Status: 503, Body: `{"name":"ignored"}`})
	out, err := b.Dispatch(t.Context(), b.plan(
		target("ask", targetclient.KindCall), target("async", targetclient.KindAsync), target("down", targetclient.KindCall), target("tell", targetclient.KindWebhook)))
	if err != nil || !out.Changed {
		t.Fatalf("outcome %+v, %v", out, err)
	}
	if lost := b.queue.Stop(t.Context()); lost != 0 {
		t.Errorf("lost %d", lost)
	}
	before := `{"fullMethod":"/p.S/M","instanceID":"default","request":{"name":"\u003cMinnie\u003e","age":30}}`
	after := `{"fullMethod":"/p.S/M","instanceID":"default","request":{"name":"Mickey","tags":["a","b"]}}`
	want := map[string]string{"/ask": before, "/async": after, "/down": after, "/tell": after}
	got := map[string]string{}
	for _, r := range b.endpoint.Requests() {
		if r.SignatureErr != nil {
			t.Errorf("%s: %v", r.Path, r.SignatureErr)
		}
		got[r.Path] = string(r.Body)
	}
	equal(t, "requests", got, want)
	content, err := b.message.JSON()
	if err != nil || string(content) != `{"name":"Mickey","tags":["a","b"]}` {
		t.Errorf("message %s, %v", content, err)
	}
}

// Sections 4.5 and 4.6 of the specification, row by row.
func TestRealAnswers(t *testing.T) {
	t.Parallel()
	const unchanged = `{"name":"<Minnie>","age":30}`
	tests := []struct {
		name   string
		answer testkit.Answer
		reason targetclient.Reason // 0: applied
		want   string              // the message afterwards
	}{
		{"empty body", testkit.Answer{}, 0, unchanged},
		{"empty body, 204", testkit.Answer{Status: 204}, 0, unchanged},
		{"replaces the whole message", testkit.Answer{Status: 201, Body: `{"age":31}`}, 0, `{"age":31}`},
		{"an empty object empties it", testkit.Answer{Body: `{}`}, 0, `{}`},
		{"content type does not matter", testkit.Answer{Body: `{"name":"x"}`, Header: map[string][]string{"Content-Type": {"text/html"}}}, 0, `{"name":"x"}`},
		{"unknown field", testkit.Answer{Body: `{"name":"x","nick":"y"}`}, targetclient.ReasonNotApplicable, unchanged},
		{"wrong type", testkit.Answer{Body: `{"name":"x","age":"old"}`}, targetclient.ReasonNotApplicable, unchanged},
		{"not JSON", testkit.Answer{Body: `ok`}, targetclient.ReasonNotApplicable, unchanged},
		{"array", testkit.Answer{Body: `[]`}, targetclient.ReasonNotApplicable, unchanged},
		{"string", testkit.Answer{Body: `"x"`}, targetclient.ReasonNotApplicable, unchanged},
		{"null", testkit.Answer{Body: `null`}, targetclient.ReasonNotApplicable, unchanged},
		{"trailing garbage", testkit.Answer{Body: `{"name":"x"}{}`}, targetclient.ReasonNotApplicable, unchanged},
		{"the envelope echoed", testkit.Answer{Body: `{"fullMethod":"/p.S/M","request":{"name":"x"}}`}, targetclient.ReasonNotApplicable, unchanged},
		{"forwarded", testkit.Answer{Body: `{"forwardedStatusCode":403,"forwardedErrorMessage":"no"}`}, targetclient.ReasonForwarded, unchanged},
		{"forwarded 500", testkit.Answer{Body: `{"forwardedStatusCode":500,"forwardedErrorMessage":"no"}`}, targetclient.ReasonPrecondition, unchanged},
		{"only a message", testkit.Answer{Body: `{"forwardedErrorMessage":"no","name":"x"}`}, targetclient.ReasonPrecondition, unchanged},
		{"403.0 is no status", testkit.Answer{Body: `{"forwardedStatusCode":403.0}`}, targetclient.ReasonNotApplicable, unchanged},
		{"status 500", testkit.Answer{Status: 500, Body: `{"forwardedStatusCode":403}`}, targetclient.ReasonFailed, unchanged},
		{"status 404", testkit.Answer{Status: 404}, targetclient.ReasonFailed, unchanged},
		{"redirect without location", testkit.Answer{Status: 302}, targetclient.ReasonFailed, unchanged},
		{"no answer", testkit.Answer{Cut: true}, targetclient.ReasonTransport, unchanged},
		{"half an answer", testkit.Answer{Cut: true, Body: `{"name":"x"}`}, targetclient.ReasonTransport, unchanged},
	}
	for _, test := range tests {
		for _, flag := range []bool{false, true} {
			name := test.name + ", tolerated"
			if flag {
				name = test.name + ", interrupting"
			}
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				b := setupReal(t, 30*time.Second)
				b.endpoint.Answer(test.answer)
				ask := target("ask", targetclient.KindCall)
				ask.InterruptOnError = flag
				_, err := b.Dispatch(t.Context(), b.plan(ask))
				interrupt, interrupted := errors.AsType[*dispatcher.InterruptError](err)
				switch {
				case interrupted != (flag && test.reason != 0), err != nil && !interrupted:
					t.Errorf("error %v", err)
				case interrupted && interrupt.Reason != test.reason:
					t.Errorf("interrupted by %s, want %s", interrupt.Reason, test.reason)
				}
				if content, err := b.message.JSON(); err != nil || string(content) != test.want {
					t.Errorf("message %s, %v; want %s", content, err, test.want)
				}
			})
		}
	}
}

func TestRealDeadlines(t *testing.T) {
	t.Parallel()
	t.Run("chain timeout", func(t *testing.T) {
		t.Parallel()
		b := setupReal(t, 500*time.Millisecond)
		b.endpoint.Answer(testkit.Answer{Hang: true})
		_, err := b.Dispatch(t.Context(), b.plan(target("slow", targetclient.KindCall), target("veto", targetclient.KindCall, interrupts)))
		interrupt, ok := errors.AsType[*dispatcher.InterruptError](err)
		if !ok || interrupt.Target != "veto" || interrupt.Reason != targetclient.ReasonTimeout {
			t.Errorf("error %v, want the interrupt of veto by the chain's timeout", err)
		}
		equal(t, "number of requests", len(b.endpoint.Requests()), 1)
	})
	t.Run("caller's deadline", func(t *testing.T) {
		t.Parallel()
		b := setupReal(t, 30*time.Second)
		b.endpoint.Answer(testkit.Answer{Hang: true})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		_, err := b.Dispatch(ctx, b.plan(target("veto", targetclient.KindWebhook, interrupts)))
		if _, ok := errors.AsType[*dispatcher.CallerGoneError](err); !ok || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want a CallerGoneError of the deadline", err)
		}
		b.endpoint.WaitLeft(1, 10*time.Second) // the webhook in flight is cancelled
	})
	t.Run("caller cancels", func(t *testing.T) {
		t.Parallel()
		b := setupReal(t, 30*time.Second)
		ctx, cancel := context.WithCancel(t.Context())
		b.endpoint.AnswerWith(func(testkit.TargetRequest) testkit.Answer {
			cancel()
			return testkit.Answer{Hang: true}
		})
		_, err := b.Dispatch(ctx, b.plan(target("tell", targetclient.KindWebhook)))
		if _, ok := errors.AsType[*dispatcher.CallerGoneError](err); !ok || !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want a CallerGoneError of the cancellation", err)
		}
		b.endpoint.WaitLeft(1, 10*time.Second)
	})
	t.Run("async goes on without the caller", func(t *testing.T) {
		t.Parallel()
		b := setupReal(t, 30*time.Second)
		b.endpoint.Answer(testkit.Answer{Hang: true})
		ctx, cancel := context.WithCancel(t.Context())
		if _, err := b.Dispatch(ctx, b.plan(target("async", targetclient.KindAsync))); err != nil {
			t.Fatal(err)
		}
		b.endpoint.Wait(1, 10*time.Second)
		cancel()
		b.endpoint.Release()
		if lost := b.queue.Stop(t.Context()); lost != 0 {
			t.Errorf("lost %d", lost)
		}
	})
}
