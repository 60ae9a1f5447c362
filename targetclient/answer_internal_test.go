package targetclient

import (
	"encoding/json"
	"testing"
)

// The short cut before the parser must not change what the parser would say.
func FuzzClassify(f *testing.F) {
	for _, body := range []string{
		``, `{}`, `{"forwardedStatusCode":403}`, `{"FORWARDEDerrormessage":"x"}`, `{"for\u0077ardedStatusCode":1}`, "\n{\"w\":\"\\\\\"}", `{"wardwardW":1}`,
	} {
		f.Add([]byte(body))
	}
	f.Fuzz(func(t *testing.T, body []byte) {
		var want struct {
			ForwardedStatusCode   int
			ForwardedErrorMessage string
		}
		asks := json.Unmarshal(body, &want) == nil && (want.ForwardedStatusCode != 0 || want.ForwardedErrorMessage != "")
		got := classify(200, body)
		if asks != (got != nil) {
			t.Fatalf("classify(%q) = %v, the parser says %+v", body, got, want)
		}
		if !asks {
			return
		}
		isForwarded := want.ForwardedStatusCode >= 400 && want.ForwardedStatusCode <= 499
		if isForwarded != (got.Reason == ReasonForwarded) || !isForwarded != (got.Reason == ReasonPrecondition) ||
			got.ForwardedStatus != want.ForwardedStatusCode || got.Message != want.ForwardedErrorMessage {
			t.Fatalf("classify(%q) = %+v, the parser says %+v", body, got, want)
		}
		if classify(500, body).Reason != ReasonFailed {
			t.Fatal("the body of a 500 counted")
		}
	})
}
