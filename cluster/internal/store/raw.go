package store

// Raw is the state of an entry whose table is not known: as it came.
type Raw struct {
	state []byte
	at    int64 // the instant that durations in it count from
}

// RawMachine keeps entries of a table that this member does not have, so that
// they can be passed on, or taken over by the table when it is made. It can't
// run anything.
type RawMachine struct{}

// RawStore holds entries of a table that is not known.
type RawStore = Store[Raw, struct{}, struct{}, RawMachine]

// Apply does nothing.
func (RawMachine) Apply(_ Call, s Raw, _ struct{}) (Raw, struct{}, Effect) {
	return s, struct{}{}, Effect{}
}

// AppendState appends the state as it came; its age travels beside it.
func (RawMachine) AppendState(b []byte, s Raw, _ int64) []byte { return append(b, s.state...) }

// ParseState keeps b.
func (RawMachine) ParseState(b []byte, now int64) (Raw, error) {
	return Raw{append([]byte(nil), b...), now}, nil
}

// AppendOp, ParseOp, AppendResult and ParseResult have nothing to do.
func (RawMachine) AppendOp(b []byte, _ struct{}) []byte       { return b }
func (RawMachine) ParseOp([]byte) (o struct{}, err error)     { return o, nil }
func (RawMachine) AppendResult(b []byte, _ struct{}) []byte   { return b }
func (RawMachine) ParseResult([]byte) (r struct{}, err error) { return r, nil }

// Merge can't look into either; the later one wins.
func (RawMachine) Merge(a, b Raw) Raw {
	if b.at >= a.at {
		return b
	}
	return a
}

// age returns how long ago the durations in s's encoding were measured.
func (st *Store[S, O, R, M]) age(s S, now int64) int64 {
	if raw, ok := any(s).(Raw); ok {
		return now - raw.at
	}
	return 0
}
