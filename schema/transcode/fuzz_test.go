package transcode_test

import (
	"sync"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/execgate/execgate/schema/transcode"
)

// schemas are the random schemas that the fuzz targets use, by seed.
var schemas sync.Map

type randomSchema struct {
	pair
	names []string
}

func schemaOf(tb testing.TB, seed uint16) randomSchema {
	tb.Helper()
	seed %= 64
	if s, ok := schemas.Load(seed); ok {
		return s.(randomSchema)
	}
	files, names := newGenerator(uint64(seed)).schema(tb)
	s := randomSchema{pair{newReference(files), transcode.NewTypes(files)}, names}
	schemas.Store(seed, s)
	return s
}

// FuzzWire: whatever bytes arrive, they are read as the oracle reads them, or
// refused as it does.
func FuzzWire(f *testing.F) {
	for seed := range uint16(16) {
		s := schemaOf(f, seed)
		g := newGenerator(uint64(seed))
		g.ref, g.names = s.ref, s.names
		for which, name := range s.names {
			b, err := proto.MarshalOptions{AllowPartial: true}.Marshal(g.fillMessage(s.ref.new(name), 0).Interface())
			if err != nil {
				f.Fatal(err)
			}
			f.Add(seed, uint8(which), append(b, g.noise()...))
		}
	}
	f.Fuzz(func(t *testing.T, seed uint16, which uint8, b []byte) {
		s := schemaOf(t, seed)
		s.wire(t, s.names[int(which)%len(s.names)], b)
	})
}

// FuzzJSON: whatever text arrives, it is read as the oracle reads it, or refused as
// it does; and it replaces a message as with the oracle.
func FuzzJSON(f *testing.F) {
	for seed := range uint16(16) {
		s := schemaOf(f, seed)
		g := newGenerator(uint64(seed))
		g.ref, g.names = s.ref, s.names
		for which, name := range s.names {
			m := g.fillMessage(s.ref.new(name), 0)
			text, err := protojson.MarshalOptions{AllowPartial: true, Resolver: s.ref}.Marshal(m.Interface())
			if err != nil {
				continue
			}
			b, err := proto.MarshalOptions{AllowPartial: true}.Marshal(m.Interface())
			if err != nil {
				f.Fatal(err)
			}
			f.Add(seed, uint8(which), append(b, g.noise()...), text)
			f.Add(seed, uint8(which), b, retold(g, text))
		}
	}
	f.Fuzz(func(t *testing.T, seed uint16, which uint8, before, text []byte) {
		s := schemaOf(t, seed)
		name := s.names[int(which)%len(s.names)]
		s.json(t, name, text)
		s.replace(t, name, before, text)
	})
}
