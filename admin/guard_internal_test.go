package admin

import (
	"errors"
	"testing"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"

	"github.com/execgate/execgate/conditions"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	actionv2 "github.com/execgate/execgate/gen/zitadel/action/v2"
	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
)

func TestEveryMethodHasARuleThatFitsItsRequest(t *testing.T) {
	t.Parallel()
	n := 0
	for _, file := range []protoreflect.FileDescriptor{
		actionv3.File_zitadel_resources_action_v3alpha_action_service_proto,
		actionv2.File_zitadel_action_v2_action_service_proto,
		gatewaypb.File_execgate_v1_gateway_service_proto,
	} {
		service := file.Services().Get(0)
		for i := range service.Methods().Len() {
			m := service.Methods().Get(i)
			full := "/" + string(service.FullName()) + "/" + string(m.Name())
			r, ok := rules[full]
			if !ok {
				t.Errorf("%s has no rule", full)
				continue
			}
			n++
			if m.Input().Fields().Len() > 0 && r.validate == nil {
				t.Errorf("%s has fields that nobody checks", full)
			}
			if r.validate == nil {
				continue
			}
			mt, err := protoregistry.GlobalTypes.FindMessageByName(m.Input().FullName())
			if err != nil {
				t.Fatal(err)
			}
			// A rule for another request reports that; one for this request may refuse or accept the empty one.
			refused := new(Error)
			if err := r.validate(mt.New().Interface()); err != nil && !errors.As(err, &refused) {
				t.Errorf("%s: %v", full, err)
			}
		}
	}
	if n != len(rules) {
		t.Errorf("%d rules for %d methods", len(rules), n)
	}
}

func TestConditionsSurviveBothMessages(t *testing.T) {
	t.Parallel()
	for _, id := range []string{
		"request", "request/a.B", "request/a.B/C", "response", "response/a.B", "response/a.B/C",
		"event", "event/a.b", "event/a.b.*", "function/preuserinfo",
	} {
		for _, m := range []proto.Message{new(actionv2.Condition), new(actionv3.Condition)} {
			parsed, err := conditions.Parse(id)
			writeCondition(m.ProtoReflect(), parsed)
			read, wellFormed := readCondition(m.ProtoReflect()).stored()
			if err != nil || !wellFormed || read != parsed {
				t.Errorf("%s through %T: %+v, want %+v", id, m, read, parsed)
			}
		}
	}
}
