package admin

import (
	"bytes"
	_ "embed"
	"net/http"
	"time"
)

//go:generate go run ../internal/openapi/generate -proto ../proto -o openapi.json

// openAPI is the document of the REST face, made of the proto files.
//
//go:embed openapi.json
var openAPI []byte

// serveOpenAPI answers without a token: the document is the same for every gateway, and tells no more than the source
// does.
func serveOpenAPI(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	http.ServeContent(w, r, "openapi.json", time.Time{}, bytes.NewReader(openAPI))
}
