package admin_test

import (
	"testing"

	"google.golang.org/grpc/codes"

	actionv3 "github.com/execgate/execgate/gen/zitadel/resources/action/v3alpha"
)

func TestEveryProtocolCreatesAndReadsATarget(t *testing.T) {
	t.Parallel()
	each(t, allProtocols, func(t *testing.T, p protocol) {
		f := start(t)
		res, out := f.call(p, newTarget("one"))
		if out.code != codes.OK {
			t.Fatalf("%+v", out)
		}
		id := res.(*actionv3.CreateTargetResponse).GetDetails().GetId()
		res, out = f.call(p, &actionv3.GetTargetRequest{Id: id})
		if out.code != codes.OK || res.(*actionv3.GetTargetResponse).GetTarget().GetTarget().GetName() != "one" {
			t.Fatalf("%+v %v", out, res)
		}
		_, out = f.call(p, &actionv3.GetTargetRequest{Id: "x"})
		wantError(t, p, out, codes.NotFound, "QUERY-hj5oaniyrz", "Target not found")
		_, out = f.call(p, &actionv3.GetTargetRequest{})
		if p != overREST {
			wantError(t, p, out, codes.InvalidArgument, "", "id")
		}
	})
}
