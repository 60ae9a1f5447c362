package transcode

// Observed is how the author of a JSON body writes: what a rewrite adds should
// look the same. Its zero value has seen nothing.
type Observed struct {
	names, protoNames     int  // keys where the two differ
	enumNames, enumDigits int  // enum values
	defaults              int  // members that spell out a default
	nulls                 int  // of them, messages spelled out as null
	incomplete            bool // some field that could be spelled out is not
}

// Style returns the style of what was seen.
func (o *Observed) Style() Style {
	spelled := o.defaults > 0 && !o.incomplete
	return Style{
		ProtoNames:   o.protoNames > o.names,
		EnumNumbers:  o.enumDigits > o.enumNames,
		Defaults:     spelled,
		Nulls:        spelled && o.nulls > 0,
		NoNullValues: true,
	}
}

func (o *Observed) name(f *Field, isJSON bool) {
	switch {
	case o == nil || f.json == f.text || f.ext:
	case isJSON:
		o.names++
	default:
		o.protoNames++
	}
}

func (o *Observed) enum(isName bool) {
	switch {
	case o == nil:
	case isName:
		o.enumNames++
	default:
		o.enumDigits++
	}
}

// unset is told of a member that leaves its field unset.
func (o *Observed) unset(f *Field, null bool) {
	if o == nil || f.oneof >= 0 {
		return
	}
	o.defaults++
	if null && (f.message != nil || f.isMap) {
		o.nulls++
	}
}

// gaps is told which fields an object had.
func (o *Observed) gaps(typ *Type, seen []uint64) {
	for _, slot := range typ.spellable {
		if o.incomplete || !has(seen, int(slot)) {
			o.incomplete = true
			return
		}
	}
}

func (o *Observed) snapshot() Observed {
	if o == nil {
		return Observed{}
	}
	return *o
}

func (o *Observed) restore(before Observed) {
	if o != nil {
		*o = before
	}
}
