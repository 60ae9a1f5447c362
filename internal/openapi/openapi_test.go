package openapi_test

import (
	"bytes"
	"context"
	"os"
	"strings"
	"testing"

	"github.com/getkin/kin-openapi/openapi3"

	"github.com/execgate/execgate/internal/openapi"
)

func document(t *testing.T, dir string, files ...string) []byte {
	t.Helper()
	services, err := openapi.Sources(t.Context(), dir, files...)
	if err != nil {
		t.Fatal(err)
	}
	text, err := openapi.Document(services)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func TestTheServedDocumentIsWhatTheProtoFilesSay(t *testing.T) {
	t.Parallel()
	served, err := os.ReadFile("../../admin/openapi.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(served, document(t, "../../proto", openapi.Files...)) {
		t.Fatal("admin/openapi.json is not what proto/ says; run make generate")
	}
}

func TestTheDocumentIsValidOpenAPI31(t *testing.T) {
	t.Parallel()
	doc, err := openapi3.NewLoader().LoadFromData(document(t, "../../proto", openapi.Files...))
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background(), openapi3.IsOpenAPI31OrLater()); err != nil {
		t.Fatal(err)
	}
	if doc.OpenAPI != "3.1.0" {
		t.Fatalf("openapi: %s", doc.OpenAPI)
	}
	ids := map[string]string{}
	for path, item := range doc.Paths.Map() {
		for verb, operation := range item.Operations() {
			if other, taken := ids[operation.OperationID]; taken {
				t.Errorf("%s %s and %s have one operationId", verb, path, other)
			}
			ids[operation.OperationID] = verb + " " + path
			if operation.Responses.Default() == nil {
				t.Errorf("%s %s: no error response", verb, path)
			}
		}
	}
}

func TestRulesThatOpenAPICannotSayAreRefused(t *testing.T) {
	t.Parallel()
	for want, rpc := range map[string]string{
		"has no HTTP rule":                 `rpc Do(In) returns (In);`,
		"has no verb":                      `rpc Do(In) returns (In) { option (google.api.http) = {custom: {kind: "HEAD" path: "/x"}}; }`,
		`the body "nosuch" is no field`:    `rpc Do(In) returns (In) { option (google.api.http) = {post: "/x" body: "nosuch"}; }`,
		"response_body is not supported":   `rpc Do(In) returns (In) { option (google.api.http) = {get: "/x" response_body: "id"}; }`,
		`"nosuch" in the path is no field`: `rpc Do(In) returns (In) { option (google.api.http) = {get: "/x/{nosuch}"}; }`,
		`pattern "a/*" in the path`:        `rpc Do(In) returns (In) { option (google.api.http) = {get: "/x/{id=a/*}"}; }`,
		"get /x is taken": `rpc Do(In) returns (In) { option (google.api.http) = {get: "/x"}; }
			rpc Again(In) returns (In) { option (google.api.http) = {get: "/x"}; }`,
	} {
		_, err := small(t, rpc, `message In { string id = 1; }`)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

func TestFieldsGoWhereTheRuleSaysThatTheyAre(t *testing.T) {
	t.Parallel()
	text, err := small(t, `
		// Reads one thing,
		// and says so.
		//
		// In two paragraphs.
		rpc ReadOne(In) returns (Out) { option (google.api.http) = {get: "/things/{thing_id=**}/part"}; }
		rpc WriteOne(In) returns (Out) { option (google.api.http) = {post: "/things/{thing_id}" body: "*" additional_bindings {put: "/other/{thing_id}" body: "inner"}}; }
	`, `
		message In {
			string thing_id = 1;
			Inner inner = 2;
			repeated string names = 3;
			map<string, int32> counts = 4;
			google.protobuf.Duration span = 5;
			repeated Inner many = 6;
			oneof one { bool yes = 7; bool no = 8; bool neither = 9; }
		}
		message Inner { uint64 big = 1; Color color = 2; Inner again = 3; }
		enum Color { COLOR_UNSPECIFIED = 0; RED = 1; }
		// What comes of it.
		message Out { oneof out { bytes raw = 1; double number = 2; } }
	`)
	if err != nil {
		t.Fatal(err)
	}
	if os.Getenv("UPDATE") != "" {
		if err := os.WriteFile("testdata/small.json", text, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile("testdata/small.json")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(text, want) {
		t.Fatalf("got\n%s", text)
	}
	doc, err := openapi3.NewLoader().LoadFromData(text)
	if err != nil {
		t.Fatal(err)
	}
	if err := doc.Validate(context.Background(), openapi3.IsOpenAPI31OrLater()); err != nil {
		t.Fatal(err)
	}
}

// small makes the document of a service of its own.
func small(t *testing.T, rpcs, messages string) ([]byte, error) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir+"/google", os.DirFS("../../proto/google")); err != nil {
		t.Fatal(err)
	}
	text := `syntax = "proto3"; package small.v1;
		import "google/api/annotations.proto"; import "google/protobuf/duration.proto";
		// A small service.
		service SmallService {` + rpcs + "}\n" + messages
	if err := os.WriteFile(dir+"/small.proto", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	services, err := openapi.Sources(t.Context(), dir, "small.proto")
	if err != nil {
		t.Fatal(err)
	}
	return openapi.Document(services)
}
