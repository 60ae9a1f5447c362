package admin_test

import (
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/execgate/execgate/admin"
)

// tableProtocols are those that every table runs over; the others share all but the outermost layer with them, and run
// the smaller matrix of protocols_test.go.
var tableProtocols = []protocol{overGRPC, overREST}

// failure is a row of a table of the specification: what is given, what is asked, and the error.
type failure struct {
	name    string
	options []func(*admin.Options)
	// given prepares the server and returns the request.
	given    func(f *fixture) proto.Message
	code     codes.Code
	id, text string
	// only names the protocols of a row that others cannot express.
	only []protocol
}

func ask(req proto.Message) func(*fixture) proto.Message {
	return func(*fixture) proto.Message { return req }
}

func runFailures(t *testing.T, rows []failure) {
	t.Helper()
	for _, row := range rows {
		t.Run(row.name, func(t *testing.T) {
			t.Parallel()
			protocols := row.only
			if protocols == nil {
				protocols = tableProtocols
			}
			each(t, protocols, func(t *testing.T, p protocol) {
				f := start(t, row.options...)
				req := row.given(f)
				revision := f.replica.State().Revision()
				_, out := f.call(p, req)
				wantError(t, p, out, row.code, row.id, row.text)
				if after := f.replica.State().Revision(); after != revision {
					t.Errorf("revision %d after the refusal, %d before", after, revision)
				}
			})
		})
	}
}
