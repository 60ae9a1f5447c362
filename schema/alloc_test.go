package schema_test

import "testing"

// Not parallel: allocations are counted for the whole process.
func TestLookUpsDoNotAllocate(t *testing.T) { //nolint:paralleltest // see above
	s := kitchen(t)
	for name, look := range map[string]func(){
		"Method, known":   func() { s.Method("/kitchen.v1.Kitchen/Get") },
		"Method, unknown": func() { s.Method("/kitchen.v1.Kitchen/Nope") },
		"Route, hit":      func() { s.Route("GET", "/kitchen/v1/rooms/1/shelves/2/things/3") },
		"Route, verb":     func() { s.Route("POST", "/kitchen/v1/things/3:cancel") },
		"Route, miss":     func() { s.Route("GET", "/oauth/v2/keys") },
	} {
		if n := testing.AllocsPerRun(100, look); n != 0 {
			t.Errorf("%s allocates %v times", name, n)
		}
	}
}
