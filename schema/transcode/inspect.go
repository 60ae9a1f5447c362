package transcode

import "fmt"

// inspect walks message m, at most depth levels deep, through the contents of
// every Any, which it reads where that has not been done.
func (t *Tree) inspect(m uint32, typ *Type, depth int) error {
	if depth <= 0 {
		return errDepth
	}
	if typ.compiled(); typ.missing {
		return fmt.Errorf("%w: %s", errIncomplete, typ.desc.FullName())
	}
	if typ.form == formAny {
		return t.inspectAny(m, typ, depth)
	}
	for i := t.live(t.entries[m].a); i != 0; i = t.live(t.entries[i].next) {
		f := &typ.fields[t.entries[i].slot()]
		switch {
		case f.isMap && f.val.message != nil:
			t.sortMap(i, f)
			for at := t.entries[i].a; at != 0; at = t.entries[at].next {
				if err := t.inspect(t.entries[at].c, f.val.message, depth-1); err != nil {
					return err
				}
			}
		case f.isMap || f.message == nil:
		case f.list:
			for at := t.entries[i].a; at != 0; at = t.entries[at].next {
				if err := t.inspect(at, f.message, depth-1); err != nil {
					return err
				}
			}
		default:
			if err := t.inspect(i, f.message, depth-1); err != nil {
				return err
			}
		}
	}
	return nil
}

// inspectAny walks the content of an Any. An Any without a type is empty.
func (t *Tree) inspectAny(m uint32, typ *Type, depth int) error {
	content, inner := t.content(m, typ)
	if inner != nil {
		// It came as JSON: what it is on the wire must be readable too.
		if err := t.fits(content, inner, maxDepthAny); err != nil {
			return err
		}
		return t.inspect(content, inner, depth-anyWeight)
	}
	url, value := t.find(m, typ.first), t.find(m, typ.second)
	if url == 0 && value == 0 {
		return nil
	}
	if url != 0 {
		inner = typ.types.byURL(t.text(&t.entries[url]))
	}
	if inner == nil {
		return fmt.Errorf("%w: content of an Any", errIncomplete)
	}
	content = t.open(m, typ)
	if value != 0 {
		e := t.entries[value]
		b := t.src
		if e.meta&flagAux != 0 {
			b = t.aux
		}
		if err := t.readWire(content, inner, b, e.meta&flagAux, int(e.a), int(e.a)+int(e.b), maxDepthAny); err != nil {
			return err
		}
	}
	return t.inspect(content, inner, depth-anyWeight)
}

// open adds an empty content to an Any: an entry behind its fields.
func (t *Tree) open(m uint32, typ *Type) uint32 {
	t.anys = true
	i := t.add(entry{meta: uint32(len(typ.fields))})
	t.link(m, i)
	return i
}

// content returns the content of an Any that has been read, and its type, which
// is nil if there is none.
func (t *Tree) content(m uint32, typ *Type) (uint32, *Type) {
	i := t.find(m, int32(len(typ.fields)))
	if i == 0 {
		return 0, nil
	}
	url := t.find(m, typ.first)
	return i, typ.types.byURL(t.text(&t.entries[url]))
}

// fits reports an error if message m is nested deeper than depth on the wire.
func (t *Tree) fits(m uint32, typ *Type, depth int) error {
	if depth--; depth < 0 {
		return errDepth
	}
	if typ.compiled().form == formAny {
		return nil
	}
	for i := t.live(t.entries[m].a); i != 0; i = t.live(t.entries[i].next) {
		f := &typ.fields[t.entries[i].slot()]
		var err error
		switch {
		case f.isMap:
			if depth < 1 {
				return errDepth
			}
			for at := t.entries[i].a; at != 0 && f.val.message != nil && err == nil; at = t.entries[at].next {
				err = t.fits(t.entries[at].c, f.val.message, depth-1)
			}
		case f.message == nil:
		case f.list:
			for at := t.entries[i].a; at != 0 && err == nil; at = t.entries[at].next {
				err = t.fits(at, f.message, depth)
			}
		default:
			err = t.fits(i, f.message, depth)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
