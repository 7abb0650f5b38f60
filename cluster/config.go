package cluster

import (
	"crypto/tls"
	"log/slog"
	"time"
)

// Config says who a member is, where it listens, and where it finds others.
// The zero value is a member of its own on loopback. Start does not change it.
type Config struct {
	// ClusterName keeps clusters apart: members of another name are refused. 1
	// to 64 of A-Z, a-z, 0-9, dot, underscore and hyphen; default "peerlimit".
	ClusterName string

	// NodeID is the member's stable name, of the same characters, at most 64.
	// It should be the same after a restart and unique in the cluster. The
	// default is the host's name, with the gossip port if that isn't 7946.
	NodeID string

	// Zone is the failure domain the member is in, at most 64 printable ASCII
	// characters without spaces; default empty.
	Zone string

	// Version is the version of the software, shown to people; at most 32
	// printable ASCII characters without spaces. The default is that of this
	// module.
	Version string

	// Bind is where gossip is received, host:port, UDP and TCP. An empty host
	// means all addresses, a port of 0 a free one. Default 127.0.0.1:7946.
	// Anything but loopback needs a secret.
	Bind string

	// PeerBind is where other members' calls are received, host:port, TCP. The
	// default is Bind's host with the next port, or a free one if Bind's is 0.
	PeerBind string

	// KVBind is where the gossip of the key-value store is received, host:port,
	// UDP and TCP. The default is Bind's host with the next port but one, or a
	// free one if Bind's is 0.
	KVBind string

	// Advertise is the host, an address or a name, under which other members
	// reach this one. The default is Bind's host, or, if that is all addresses,
	// this host's first private address, or else its first public one.
	Advertise string

	// Join lists where other members may be: host:port, addresses, or DNS names
	// that may have many addresses; without a port, Bind's is meant, or 7946.
	// They are asked for ever, so they may come and go; the member's own
	// address is skipped. A member with an empty list waits to be found, and
	// serves at once.
	Join []string

	// Secret is what members prove to one another, and the source of the keys
	// their talk is encrypted with. Take 32 random bytes. It may be left out
	// only if everything is bound to loopback.
	Secret []byte

	// Secrets takes Secret's place while it is being rotated: the first is
	// used, all are accepted. At most 16. Only one of the two may be set.
	Secrets [][]byte

	// TLSCert, TLSKey and TLSCA are files in PEM format: this member's
	// certificate and key, and the authority that signs the members' (for both
	// sides). They take the secret's place between peers, not in gossip. All
	// three or none.
	TLSCert, TLSKey, TLSCA string

	// TLS takes the place of the three files. It must have RootCAs, ClientCAs
	// or both.
	TLS *tls.Config

	// MinMembers is how many members, this one included, must see one another
	// to serve what they hold: the smaller part of a split network then
	// refuses. 1 to 10,000; default 1.
	MinMembers int

	// JoinTimeout is how long all addresses in Join may be silent before the
	// member counts itself the first of its cluster, and serves. 100 ms to
	// 10 min; default 2 s.
	JoinTimeout time.Duration

	// DrainTimeout is how long Close hands over before it leaves all the same.
	// 1 ms to 1 h; default 10 s.
	DrainTimeout time.Duration

	// Logger gets a line for each change of state. Default: silent.
	Logger *slog.Logger

	// Calls is told of every [Node.Call] and [Node.Broadcast]. Default: nobody.
	Calls CallObserver

	// Timings are those of the protocol that keeps counters right. Members of
	// one cluster must have the same. The zero value takes the defaults.
	Timings Timings
}

// Timings of the protocol between the holder of a slot and its backup. Change
// them only together, and only for a network whose round trips are far above
// the 16 ms they are made for. Fields that are 0 take the defaults.
type Timings struct {
	// Grant is how long a backup promises not to serve in its holder's place.
	// 20 ms to 1 min; default 150 ms.
	Grant time.Duration
	// Beat is how often a grant is renewed, at most a third of Grant. At least
	// 1 ms; default 30 ms.
	Beat time.Duration
	// Suspect is how old an unanswered renewal makes the other one suspect,
	// above Beat and below Grant. Default 50 ms.
	Suspect time.Duration
	// Gap is the pause of this member's own clock after which what it did not
	// hear means nothing, below Grant. Default 50 ms.
	Gap time.Duration
	// CopyEvery is how often changes that nobody waits for are copied, below
	// Grant. Default 20 ms.
	CopyEvery time.Duration
	// Call is the whole time of an operation, after which it fails. Above
	// Grant, at most 1 min; default 250 ms.
	Call time.Duration
}

// DefaultTimings returns the defaults.
func DefaultTimings() Timings {
	const ms = time.Millisecond
	return Timings{Grant: 150 * ms, Beat: 30 * ms, Suspect: 50 * ms, Gap: 50 * ms, CopyEvery: 20 * ms, Call: 250 * ms}
}

// Defaults of Config.
const (
	DefaultClusterName  = "peerlimit"
	DefaultBind         = "127.0.0.1:7946"
	DefaultPort         = 7946
	DefaultJoinTimeout  = 2 * time.Second
	DefaultDrainTimeout = 10 * time.Second
)

// A ConfigError says what is wrong with one field of a Config.
type ConfigError struct {
	Field  string // its name, such as "Join"
	Detail string // what is wrong, and what is allowed
	Err    error  // the cause, if there is one
}

// Error implements error.
func (e *ConfigError) Error() string {
	text := "cluster: Config." + e.Field + ": " + e.Detail
	if e.Err != nil {
		text += ": " + e.Err.Error()
	}
	return text
}

// Unwrap returns the cause.
func (e *ConfigError) Unwrap() error { return e.Err }
