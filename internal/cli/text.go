package cli

import (
	"strings"
	"time"

	"google.golang.org/protobuf/types/known/timestamppb"
)

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

// stamp is a time for people, in UTC so that everybody reads the same.
func stamp(t *timestamppb.Timestamp) string {
	if t == nil {
		return ""
	}
	return t.AsTime().UTC().Format("2006-01-02 15:04:05Z")
}

// protoTime is a time as protojson writes it.
func protoTime(t *timestamppb.Timestamp) any {
	if t == nil {
		return nil
	}
	return t.AsTime().UTC().Format(time.RFC3339Nano)
}

// enumWord is the name of an enum value for people: "EXECUTION_MODE_SHADOW" is
// "shadow".
func enumWord(name, prefix string) string {
	word := strings.ToLower(strings.TrimPrefix(name, prefix))
	if word == "unspecified" {
		return ""
	}
	return word
}
