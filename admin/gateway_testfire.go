package admin

import (
	"context"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/execgate/execgate/conditions"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/store"
)

// maxShownAnswer is how much of a target's answer a test-fire shows.
const maxShownAnswer = 64 << 10

// TestFire calls the targets of an execution with messages of the caller's.
func (g *gateway) TestFire(ctx context.Context, r *gatewaypb.TestFireRequest) (*gatewaypb.TestFireResponse, error) {
	if g.o.TestFire == nil {
		return nil, errNoTestFire
	}
	s, err := g.core.read(ctx)
	if err != nil {
		return nil, err
	}
	e := findExecution(s, r.GetId())
	if e == nil {
		return nil, errNoSuchExecution
	}
	t, err := testFire(e, r)
	if err != nil {
		return nil, err
	}
	result, err := g.o.TestFire(ctx, t)
	if err != nil {
		return nil, err
	}
	out := &gatewaypb.TestFireResponse{Outcome: result.Outcome, Message: jsonValue(result.Message), Error: validText(result.Error)}
	for _, c := range result.Calls {
		out.Calls = append(out.Calls, &gatewaypb.TestFireCall{
			Target:   c.Target,
			Request:  jsonValue(c.Request),
			Status:   uint32(max(c.Status, 0)),
			Response: validText(string(c.Response[:min(len(c.Response), maxShownAnswer)])),
			Outcome:  c.Outcome,
			Duration: durationpb.New(c.Duration),
			Error:    validText(c.Err),
		})
	}
	return out, nil
}

// validText makes what came from outside fit for a message.
func validText(s string) string { return strings.ToValidUTF8(s, "\uFFFD") }

// testFire reads a request for an execution.
func testFire(e *store.Execution, r *gatewaypb.TestFireRequest) (TestFire, error) {
	c, err := conditions.Parse(e.ID)
	if err != nil {
		return TestFire{}, errNoSuchExecution
	}
	t := TestFire{Execution: e.ID}
	if c.Kind == conditions.Function || c.Kind == conditions.Event {
		if r.GetMethod() != "" {
			return t, invalid("method: value must be absent for an execution of a function or of events")
		}
		if r.GetResponse() != nil {
			return t, invalid("response: value must be absent for an execution of a function or of events")
		}
		t.Request, err = messageIn("request", r.GetRequest())
		return t, err
	}
	if t.Method, err = testMethod(c, r.GetMethod()); err != nil {
		return t, err
	}
	if t.Request, err = messageIn("request", r.GetRequest()); err != nil {
		return t, err
	}
	if c.Kind == conditions.Response {
		t.Response, err = messageIn("response", r.GetResponse())
	} else if r.GetResponse() != nil {
		err = invalid("response: value must be absent for an execution of the request phase")
	}
	return t, err
}

// testMethod returns the method that the messages belong to.
func testMethod(c conditions.Condition, given string) (string, error) {
	if given != "" {
		given = "/" + strings.TrimPrefix(given, "/")
		if strings.Count(given, "/") != 2 {
			return "", invalid(`method: value must be like "/package.Service/Method"`)
		}
	}
	switch {
	case c.Level == conditions.Method && (given == "" || given == c.Value):
		return c.Value, nil
	case c.Level == conditions.Method:
		return "", invalid("method: the execution is on %s", c.Value)
	case given == "":
		return "", invalid("method: value is required, the execution is on more than one")
	case c.Level == conditions.Service && !strings.HasPrefix(given, "/"+c.Value+"/"):
		return "", invalid("method: the execution is on %s", c.Value)
	}
	return given, nil
}

// messageIn returns a message as JSON; absent is the empty one.
func messageIn(field string, v *structpb.Value) ([]byte, error) {
	switch v.GetKind().(type) {
	case nil, *structpb.Value_NullValue:
		return []byte("{}"), nil
	case *structpb.Value_StructValue:
	default:
		return nil, invalid("%s: value must be a JSON object", field)
	}
	text, err := protojson.Marshal(v)
	if err != nil {
		return nil, invalid("%s: value is not valid JSON", field)
	}
	return text, nil
}
