package targetclient

import (
	"reflect"
	"testing"
)

// A header that can be read is written so that it reads the same; one that
// cannot leaves nothing.
func FuzzSignatureHeader(f *testing.F) {
	for _, s := range []string{"", "t=1,v1=00", "v1=AB,v1=,t=-5", "t=+7,x=y", "a=b=c", "t=x", ","} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, value string) {
		h, err := parseSignatureHeader(value)
		if err != nil {
			if h.hasTime || h.v1 != nil {
				t.Fatalf("%q: refused, but %+v was read", value, h)
			}
			return
		}
		printed := h.String()
		if printed == "" {
			return // nothing but unknown parts
		}
		again, err := parseSignatureHeader(printed)
		if err != nil || !reflect.DeepEqual(again, h) {
			t.Fatalf("%q was read as %+v, printed as %q, and read as %+v (%v)", value, h, printed, again, err)
		}
		if again.String() != printed {
			t.Fatalf("%q is printed as %q", printed, again.String())
		}
	})
}
