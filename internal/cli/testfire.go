package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/execgate/execgate/conditions"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
)

func (p *program) newTestFire() *cobra.Command {
	var o format
	var payload, request, method string
	cmd := &cobra.Command{
		Use:   "test-fire EXECUTION --payload FILE",
		Short: "Call the targets of an execution with a message of your own",
		Long: `Calls the targets of an execution, in order, and shows what each got, what it
answered, and the message that comes of it. The targets really are called;
nothing goes upstream.
The payload is JSON ("-" reads standard input): the request message, of a
response execution the response message (its request with --request), or a
whole body that a target once got, with fullMethod, request and response in it.
Of a function it is what the identity provider sends, without function and
response; the message that comes of it is the merged response.
Of events it is one event as targets get it. Each target is called once, nothing
is queued or tried again.`,
		Example: `  execgate test-fire request/zitadel.user.v2.UserService/AddHumanUser --payload user.json
  execgate test-fire request --method /zitadel.user.v2.UserService/AddHumanUser --payload user.json
  execgate test-fire function/preuserinfo --payload userinfo.json
  execgate test-fire 'event/user.human.*' --payload added.json
  jq .body recorded.json | execgate test-fire response/zitadel.user.v2.UserService/AddHumanUser --payload -`,
		Args: exactly("EXECUTION"),
	}
	cmd.Flags().StringVar(&payload, "payload", "", "JSON `FILE` with the message")
	cmd.Flags().StringVar(&request, "request", "", "JSON `FILE` with the request message of a response execution")
	cmd.Flags().StringVar(&method, "method", "", "`METHOD` whose messages these are, where the execution leaves it open")
	_ = cmd.MarkFlagFilename("payload", "json")
	_ = cmd.MarkFlagFilename("request", "json")
	return p.remote(cmd, &o, func(ctx context.Context, s *session, args []string) error {
		req, err := s.shot(args[0], payload, request, method)
		if err != nil {
			return err
		}
		s.patient(fireTime)
		res, err := s.gateway.TestFire(ctx, req)
		if err != nil {
			return unknown(err, func() error {
				c, _ := executionID(req.GetId())
				if found, findErr := s.execution(ctx, c); findErr == nil && found == nil {
					return s.unknownExecution(ctx, req.GetId())
				}
				return err
			})
		}
		return s.show(res, func(w io.Writer) { writeFired(w, res) })
	}, words(1, someExecutions), flagWords("method", allMethods))
}

// fireTime leaves a chain of targets its time: proxy.chain_timeout is 30s
// unless it was changed.
const fireTime = time.Minute

// shot puts the request together from what the arguments say.
func (s *session) shot(id, payloadFile, requestFile, method string) (*gatewaypb.TestFireRequest, error) {
	c, err := executionID(id)
	if err != nil {
		return nil, err
	}
	switch {
	case payloadFile == "":
		return nil, usage("--payload FILE is missing")
	case requestFile != "" && c.Kind != conditions.Response:
		return nil, usage("--request is for response executions; give the message with --payload")
	case requestFile == "-" && payloadFile == "-":
		return nil, usage("--payload and --request cannot both be standard input")
	}
	calls := c.Kind == conditions.Request || c.Kind == conditions.Response
	if method != "" && !calls {
		return nil, usage("--method is for executions of requests and responses")
	}
	req := &gatewaypb.TestFireRequest{Id: c.ID()}
	if method != "" {
		if req.Method, err = methodName(method); err != nil {
			return nil, err
		}
	}
	payload, err := s.readJSON(payloadFile)
	if err != nil {
		return nil, err
	}
	if full, request, response, ok := recorded(payload); ok && calls {
		req.Request, req.Response = request, response
		if req.GetMethod() == "" && c.Level != conditions.Method {
			req.Method = full
		}
	} else if c.Kind == conditions.Response {
		req.Response = payload
	} else {
		req.Request = payload
	}
	if requestFile != "" {
		if req.Request, err = s.readJSON(requestFile); err != nil {
			return nil, err
		}
	}
	if calls && c.Level != conditions.Method && req.GetMethod() == "" {
		return nil, usage("%s covers many methods; say with --method which one's message the payload is", c.ID())
	}
	return req, nil
}

// readJSON reads a file as a value of JSON.
func (s *session) readJSON(name string) (*structpb.Value, error) {
	text, err := readBounded(name, s.cmd.InOrStdin())
	if err != nil {
		return nil, err
	}
	if !json.Valid(text) {
		return nil, &Failure{fmt.Errorf("%s is not JSON", fileName(name)), "write one JSON value: the message as the API's JSON form has it"}
	}
	value := &structpb.Value{}
	if err := protojson.Unmarshal(text, value); err != nil {
		return nil, fmt.Errorf("%s cannot be read as a JSON value", fileName(name))
	}
	return value, nil
}

// recorded takes a body that a target got apart.
func recorded(v *structpb.Value) (method string, request, response *structpb.Value, ok bool) {
	fields := v.GetStructValue().GetFields()
	full := fields["fullMethod"].GetStringValue()
	if !strings.HasPrefix(full, "/") || fields["request"] == nil && fields["response"] == nil {
		return "", nil, nil, false
	}
	return full, fields["request"], fields["response"], true
}

func writeFired(w io.Writer, res *gatewaypb.TestFireResponse) {
	for i, call := range res.GetCalls() {
		status := "no answer"
		if call.GetStatus() != 0 {
			status = fmt.Sprint(call.GetStatus())
		}
		_, _ = fmt.Fprintf(w, "%d  %s  %s  %s  %s\n", i+1, cellText(call.GetTarget()), cellText(call.GetOutcome()), status, call.GetDuration().AsDuration())
		_, _ = fmt.Fprintf(w, "   request   %s\n", jsonText(call.GetRequest()))
		if call.GetResponse() != "" {
			_, _ = fmt.Fprintf(w, "   response  %s\n", cellText(strings.TrimSpace(call.GetResponse())))
		}
		if call.GetError() != "" {
			_, _ = fmt.Fprintf(w, "   error     %s\n", cellText(call.GetError()))
		}
	}
	if len(res.GetCalls()) == 0 {
		_, _ = fmt.Fprintln(w, "no target was called")
	}
	_, _ = fmt.Fprintf(w, "outcome: %s\n", cellText(res.GetOutcome()))
	if res.GetError() != "" {
		_, _ = fmt.Fprintf(w, "error: %s\n", cellText(res.GetError()))
	}
	if res.GetMessage() != nil {
		_, _ = fmt.Fprintf(w, "message: %s\n", jsonText(res.GetMessage()))
	}
}
