package h2

import (
	"net/http"
	"strings"
)

// commonNames are the header names that are met all the time, in the form that handlers use.
var commonNames = []string{
	"Accept", "Accept-Charset", "Accept-Encoding", "Accept-Language", "Accept-Ranges", "Access-Control-Allow-Credentials",
	"Access-Control-Allow-Headers", "Access-Control-Allow-Methods", "Access-Control-Allow-Origin",
	"Access-Control-Expose-Headers", "Access-Control-Max-Age", "Access-Control-Request-Headers",
	"Access-Control-Request-Method", "Age", "Allow", "Authorization", "Cache-Control", "Connect-Protocol-Version",
	"Connect-Timeout-Ms", "Content-Disposition", "Content-Encoding", "Content-Language", "Content-Length",
	"Content-Location", "Content-Range", "Content-Type", "Cookie", "Date", "Etag", "Expect", "Expires", "Forwarded",
	"From", "Grpc-Accept-Encoding", "Grpc-Encoding", "Grpc-Message", "Grpc-Previous-Rpc-Attempts", "Grpc-Status",
	"Grpc-Status-Details-Bin", "Grpc-Timeout", "Host", "If-Match", "If-Modified-Since", "If-None-Match", "If-Range",
	"If-Unmodified-Since", "Last-Modified", "Link", "Location", "Max-Forwards", "Origin", "Priority", "Range", "Referer",
	"Retry-After", "Sec-Fetch-Dest", "Sec-Fetch-Mode", "Sec-Fetch-Site", "Server", "Set-Cookie",
	"Strict-Transport-Security", "Te", "Traceparent", "Tracestate", "Trailer", "User-Agent", "Vary", "Via",
	"Www-Authenticate", "X-Content-Type-Options", "X-Forwarded-For", "X-Forwarded-Host", "X-Forwarded-Proto",
	"X-Frame-Options", "X-Request-Id", "X-Zitadel-Orgid",
}

var toCanonical, toLower = func() (up, down map[string]string) {
	up, down = make(map[string]string, len(commonNames)), make(map[string]string, len(commonNames))
	for _, name := range commonNames {
		lower := strings.ToLower(name)
		up[lower], down[name] = name, lower
	}
	return up, down
}()

// canonical is http.CanonicalHeaderKey, without garbage for common names.
func canonical(lower string) string {
	if name, ok := toCanonical[lower]; ok {
		return name
	}
	return http.CanonicalHeaderKey(lower)
}

// lowerName is strings.ToLower, without garbage for common names.
func lowerName(name string) string {
	if lower, ok := toLower[name]; ok {
		return lower
	}
	return strings.ToLower(name)
}
