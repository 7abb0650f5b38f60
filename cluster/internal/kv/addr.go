package kv

import (
	"encoding/binary"
	"net"
	"net/netip"
	"strconv"

	"github.com/cespare/xxhash/v2"
)

// LoopbackAddr returns the address in 127.0.0.0/8 on which the member with
// that boot ID runs olric's server, where the system lets it. Olric names
// members by this address, so that it should differ from member to member
// though none of them ever dials another's.
func LoopbackAddr(boot uint64) netip.Addr {
	var b [8]byte
	binary.BigEndian.PutUint64(b[:], boot)
	h := xxhash.Sum64(b[:])
	// 127.1.0.1 to 127.254.255.254, no byte of which is a broadcast address's.
	return netip.AddrFrom4([4]byte{
		127,
		byte(1 + h%254),
		byte(h >> 16),
		byte(1 + (h>>32)%254),
	})
}

// freeLoopback returns a free port on the boot ID's loopback address, or on
// 127.0.0.1 on systems that have no other.
func freeLoopback(boot uint64) (host string, port int, err error) {
	host = LoopbackAddr(boot).String()
	port, err = freePort(host)
	if err != nil {
		host = "127.0.0.1"
		port, err = freePort(host)
	}
	return host, port, err
}

func freePort(host string) (int, error) {
	ln, err := net.Listen("tcp", net.JoinHostPort(host, "0"))
	if err != nil {
		return 0, err
	}
	port := ln.Addr().(*net.TCPAddr).Port
	return port, ln.Close()
}

func joinHostPort(host string, port int) string {
	return net.JoinHostPort(host, strconv.Itoa(port))
}
