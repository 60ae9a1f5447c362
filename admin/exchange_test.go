package admin_test

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/proto"

	"github.com/execgate/execgate/admin"
	gatewaypb "github.com/execgate/execgate/gen/execgate/v1"
	"github.com/execgate/execgate/internal/depot"
	"github.com/execgate/execgate/internal/testkit"
)

// withPlaces keeps files in a directory, and connects to real servers on loopback.
func withPlaces(dir, gcs string) func(*admin.Options) {
	return func(o *admin.Options) {
		o.Gateway.Places = depot.New(depot.Options{Dir: dir, GCSEmulator: gcs, Dial: func(ctx context.Context, network, address string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, address)
		}})
	}
}

func TestExportAndImportThroughRealPlaces(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	s3, gcs := testkit.StartS3(t, false, "exports"), testkit.StartGCS(t, "exports")
	f, other := start(t, withPlaces(dir, gcs.URL)), start(t, withPlaces(dir, gcs.URL))
	f.apply(base, false)
	want := f.export(true)

	inS3 := &gatewaypb.S3Location{
		Path: "a/b.yaml", Endpoint: s3.Endpoint, AccessKeyId: s3.AccessKey, SecretAccessKey: s3.SecretKey, Bucket: "exports",
	}
	inGCS := &gatewaypb.GCSLocation{Bucket: "exports", Path: "a/b.yaml"}
	local := &gatewaypb.LocalOutput{Path: "a/b.yaml"}
	for name, c := range map[string]struct {
		out *gatewaypb.ExportRequest
		in  *gatewaypb.ImportRequest
	}{
		"local": {&gatewaypb.ExportRequest{LocalOutput: local}, &gatewaypb.ImportRequest{LocalInput: local}},
		"s3":    {&gatewaypb.ExportRequest{S3Output: inS3}, &gatewaypb.ImportRequest{S3Input: inS3}},
		"gcs":   {&gatewaypb.ExportRequest{GcsOutput: inGCS}, &gatewaypb.ImportRequest{GcsInput: inGCS}},
	} {
		for _, p := range []protocol{overGRPC, overREST} {
			c.out.WithSigningKeys, c.out.Timeout, c.in.Timeout = true, "20s", "20s"
			res, out := f.call(p, c.out)
			if out.code != codes.OK {
				t.Fatalf("%s: %+v", name, out)
			}
			if e := res.(*gatewaypb.ExportResponse); e.GetTargets() != 2 || e.GetExecutions() != 2 || e.GetRevision() != 1 || e.GetDocument() != "" {
				t.Errorf("%s: %v", name, e)
			}
			other.apply("kind: Export\nformat: 1\n", true) // empty again
			res, out = other.call(p, c.in)
			if out.code != codes.OK || !res.(*gatewaypb.ImportResponse).GetApplied() {
				t.Fatalf("%s: %+v %v", name, out, res)
			}
			if got := other.export(true); body(got) != body(want) {
				t.Errorf("%s:\n%s\nwant\n%s", name, got, want)
			}
		}
	}
	for _, file := range []string{filepath.Join(dir, "a/b.yaml"), filepath.Join(s3.Dir, "exports/a/b.yaml")} {
		if text, err := os.ReadFile(file); err != nil || string(text) != want {
			t.Errorf("%s: %v\n%s", file, err, text)
		}
	}

	for _, c := range []struct {
		name string
		req  proto.Message
		code codes.Code
		http int
	}{
		{"out of the directory", &gatewaypb.ExportRequest{LocalOutput: &gatewaypb.LocalOutput{Path: "../x"}}, codes.InvalidArgument, 400},
		{"no such file", &gatewaypb.ImportRequest{LocalInput: &gatewaypb.LocalOutput{Path: "x"}}, codes.NotFound, 404},
		{"no such bucket", &gatewaypb.ImportRequest{GcsInput: &gatewaypb.GCSLocation{Bucket: "x", Path: "x"}}, codes.NotFound, 404},
	} {
		_, out := f.call(overREST, c.req)
		if out.code != c.code || out.http != c.http || strings.Contains(out.message, dir) {
			t.Errorf("%s: %+v", c.name, out)
		}
	}
	if err := os.WriteFile(filepath.Join(dir, "bad"), []byte("kind: Target\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, out := f.call(overREST, &gatewaypb.ImportRequest{LocalInput: &gatewaypb.LocalOutput{Path: "bad"}}); out.code != codes.InvalidArgument || !strings.Contains(out.message, "line 1: Target: name: missing") {
		t.Errorf("%+v", out)
	}
}
