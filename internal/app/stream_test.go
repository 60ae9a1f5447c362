package app_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	demopb "github.com/execgate/execgate/gen/execgate/demo/v1"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionpb "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
)

// TestStreamsFireMessageByMessageWhenAsked: the policy decides, from the next call on.
func TestStreamsFireMessageByMessageWhenAsked(t *testing.T) {
	t.Parallel()
	_, addr := upstream(t, "127.0.0.1:0")
	g := start(t, configuration(t, addr)).learned()
	target := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"number":7}`)
	}))
	t.Cleanup(target.Close)
	id := g.createTarget(&actionpb.Target{
		Name:       "seven",
		TargetType: &actionpb.Target_RestRequestResponse{RestRequestResponse: &actionpb.SetRESTRequestResponse{Url: target.URL}},
	})
	g.put(&actionpb.Condition{ConditionType: &actionpb.Condition_Response{Response: &actionpb.ResponseExecution{
		Condition: &actionpb.ResponseExecution_All{All: true},
	}}}, []string{id})
	count := func() string {
		stream, err := g.streams.Count(t.Context(), &demopb.CountRequest{To: 3})
		if err != nil {
			t.Fatal(err)
		}
		var numbers []uint32
		for {
			m, err := stream.Recv()
			if errors.Is(err, io.EOF) {
				return fmt.Sprint(numbers)
			}
			if err != nil {
				t.Fatal(err)
			}
			numbers = append(numbers, m.GetNumber())
		}
	}
	for _, on := range []bool{false, true, false} {
		g.policyOfExecution("response", &gatewaypb.ExecutionPolicy{PerMessage: &on})
		want := "[1 2 3]"
		if on {
			want = "[7 7 7]"
		}
		if got := count(); got != want {
			t.Errorf("per_message %v: got %s", on, got)
		}
	}
}
