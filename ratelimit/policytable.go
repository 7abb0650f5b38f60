package ratelimit

import (
	"encoding/binary"
	"math"
	"time"

	"github.com/peerlimit/peerlimit/cluster"
)

// record is what the table of policies keeps under a policy's name, and, as a
// bare version, under countKey. Its zero value is none.
type record struct {
	version  uint32 // rises with every change; about seconds since 2020
	deleted  bool
	fromFile bool
	body     string // a StoredPolicy as JSON
}

type recordKind uint8

const (
	recordGet recordKind = iota + 1
	recordPut
	recordDelete
	recordCount // raise the version, whatever the body
	recordKindEnd
)

type recordOp struct {
	kind     recordKind
	fromFile bool // recordPut: leave a policy alone that was changed at run time
	expected bool // recordPut: only if the version is still this one
	version  uint32
	body     string
}

type recordResult struct {
	done   bool // the record is now as was asked for
	record record
}

// recordMachine is the state machine of the table of policies. Every change is
// synchronous.
type recordMachine struct{}

const (
	// recordsKept is how long a policy is kept: for ever, as a duration that
	// can be added to a clock.
	recordsKept = int64(MaxPeriod)
	// deletionsKept is how long a deletion is remembered, so that a copy of
	// what was deleted does not come back.
	deletionsKept = int64(time.Hour)
)

var versionEpoch = time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC).Unix()

// nextVersion rises even over a cluster that has lost everything.
func nextVersion(c cluster.Call, last uint32) uint32 {
	return max(last+1, uint32(max(c.Wall().Unix()-versionEpoch, 1)))
}

func (recordMachine) Apply(c cluster.Call, s record, o recordOp) (record, recordResult, cluster.Effect) {
	e := cluster.Effect{Changed: true, Wait: true, Expires: c.Now + recordsKept}
	switch {
	case o.kind == recordGet:
		return s, recordResult{true, s}, cluster.Effect{}
	case o.kind == recordCount:
		s.version++
		return s, recordResult{true, s}, e
	case o.expected && o.version != s.version && !(c.Again && o.body == s.body):
		return s, recordResult{false, s}, cluster.Effect{}
	case o.kind == recordDelete:
		if s.version == 0 || s.deleted && !c.Again {
			return s, recordResult{false, s}, cluster.Effect{}
		}
		if !s.deleted {
			s = record{version: nextVersion(c, s.version), deleted: true}
		}
		e.Expires = c.Now + deletionsKept
		return s, recordResult{true, s}, e
	case o.fromFile && s.version != 0 && !s.deleted && !s.fromFile:
		return s, recordResult{false, s}, cluster.Effect{}
	}
	if s.body != o.body || s.deleted || s.version == 0 {
		s.version = nextVersion(c, s.version)
	} else if s.fromFile == o.fromFile && !c.Again {
		return s, recordResult{true, s}, cluster.Effect{}
	}
	s.body, s.fromFile, s.deleted = o.body, o.fromFile, false
	return s, recordResult{true, s}, e
}

// Merge takes the later version.
func (recordMachine) Merge(x, y record) record {
	if y.version > x.version || y.version == x.version && y.body > x.body {
		return y
	}
	return x
}

const (
	recordIsDeleted = 1 << iota
	recordIsFromFile
	recordIsExpected
	recordIsDone
)

func packed(flags ...bool) (b byte) {
	for i, f := range flags {
		if f {
			b |= 1 << i
		}
	}
	return b
}

func (recordMachine) AppendState(b []byte, s record, _ int64) []byte {
	return appendRecord(b, s, false)
}

func appendRecord(b []byte, s record, done bool) []byte {
	b = append(b, packed(s.deleted, s.fromFile, false, done))
	b = binary.AppendUvarint(b, uint64(s.version))
	return append(b, s.body...)
}

func (recordMachine) ParseState(b []byte, _ int64) (record, error) {
	s, _, err := parseRecord(b)
	return s, err
}

func parseRecord(b []byte) (s record, done bool, err error) {
	r := reader{b: b}
	flags := r.byte()
	s.version = uint32(r.uvarint(math.MaxUint32))
	if r.bad || len(r.b) > maxRecord {
		return record{}, false, errMalformed
	}
	s.deleted, s.fromFile = flags&recordIsDeleted != 0, flags&recordIsFromFile != 0
	s.body = string(r.b)
	return s, flags&recordIsDone != 0, nil
}

func (recordMachine) AppendOp(b []byte, o recordOp) []byte {
	b = append(b, byte(o.kind), packed(false, o.fromFile, o.expected))
	b = binary.AppendUvarint(b, uint64(o.version))
	return append(b, o.body...)
}

func (recordMachine) ParseOp(b []byte) (recordOp, error) {
	r := reader{b: b}
	o := recordOp{kind: recordKind(r.byte())}
	flags := r.byte()
	o.version = uint32(r.uvarint(math.MaxUint32))
	if r.bad || o.kind == 0 || o.kind >= recordKindEnd || len(r.b) > maxRecord {
		return recordOp{}, errMalformed
	}
	o.fromFile, o.expected = flags&recordIsFromFile != 0, flags&recordIsExpected != 0
	o.body = string(r.b)
	return o, nil
}

func (recordMachine) AppendResult(b []byte, r recordResult) []byte {
	return appendRecord(b, r.record, r.done)
}

func (recordMachine) ParseResult(b []byte) (r recordResult, err error) {
	r.record, r.done, err = parseRecord(b)
	return r, err
}
