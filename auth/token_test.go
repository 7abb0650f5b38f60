package auth

import (
	"hash/crc32"
	"slices"
	"strings"
	"testing"
	"time"
)

func mustFormat(t testing.TB, prefix string) format {
	t.Helper()
	f, err := newFormat(prefix)
	if err != nil {
		t.Fatal(err)
	}
	return f
}

func TestGeneratedKeys(t *testing.T) {
	f := mustFormat(t, "pl")
	seen := map[string]bool{}
	digits := map[rune]int{}
	for i := range 2000 {
		env := Environment(i % 2)
		key := f.generate(env).Reveal()
		if len(key) != len("pl_live_")+randomDigits+checksumDigits || !strings.HasPrefix(key, "pl_"+env.String()+"_") {
			t.Fatalf("%q: length %d", key, len(key))
		}
		if !f.wellFormed(key) || !f.ours(key) || seen[key] {
			t.Fatalf("%q: well formed %v, seen %v", key, f.wellFormed(key), seen[key])
		}
		seen[key] = true
		for _, r := range key[len("pl_live_") : len(key)-checksumDigits] {
			digits[r]++
		}
	}
	if len(digits) != 62 {
		t.Errorf("%d different digits, want 62", len(digits))
	}
	for r, n := range digits { // 64,000 digits: 1,032 of each, standard deviation 32
		if n < 1032-6*32 || n > 1032+6*32 {
			t.Errorf("digit %c came %d times, want about 1032", r, n)
		}
	}
}

// Every single wrong character, and every swap of neighbours, is noticed.
func TestChecksumFindsTypos(t *testing.T) {
	f := mustFormat(t, "pl")
	key := f.generate(Live).Reveal()
	for i := range key {
		for _, c := range "0aZ_ \x00\xff" {
			if byte(c) == key[i] {
				continue
			}
			typo := key[:i] + string([]byte{byte(c)}) + key[i+1:]
			if f.wellFormed(typo) && f.ours(typo) {
				t.Errorf("%q passes for %q", typo, key)
			}
		}
		if i > 0 && key[i] != key[i-1] {
			if typo := key[:i-1] + string([]byte{key[i], key[i-1]}) + key[i+1:]; f.wellFormed(typo) && f.ours(typo) {
				t.Errorf("%q passes for %q", typo, key)
			}
		}
	}
}

// The checksum is what the comment says, so that scanners of others can check it too.
func TestChecksumIsCRC32(t *testing.T) {
	body := "pl_live_" + strings.Repeat("0", randomDigits)
	sum := crc32.ChecksumIEEE([]byte(body))
	want := ""
	for range checksumDigits {
		want = string(base62[sum%62]) + want
		sum /= 62
	}
	if !mustFormat(t, "pl").wellFormed(body + want) {
		t.Errorf("%s%s is not well formed", body, want)
	}
	if got := string(appendChecksum(nil, 0)); got != "000000" {
		t.Errorf("checksum of 0: %s", got)
	}
	if got := string(appendChecksum(nil, 1<<32-1)); got != "4gfFC3" {
		t.Errorf("checksum of 2^32-1: %s", got)
	}
}

func TestPrefixes(t *testing.T) {
	for _, bad := range []string{"", "PL", "1pl", "p-l", "p_l", "p l", "ключ", strings.Repeat("p", maxPrefix+1)} {
		if _, err := newFormat(bad); err == nil {
			t.Errorf("prefix %q: no error", bad)
		}
	}
	mine, yours := mustFormat(t, "shop2"), mustFormat(t, "pl")
	key := mine.generate(Test).Reveal()
	if yours.ours(key) || !yours.wellFormed(key) {
		t.Error("a key of another prefix is a foreign one")
	}
}

func TestDisplay(t *testing.T) {
	f := mustFormat(t, "pl")
	key := f.generate(Test).Reveal()
	for in, want := range map[string]string{
		key: key[:12] + "…", "0123456789abcdef": "01…", "short": "…", strings.Repeat("x", 100): "xxxx…", "pl_live_": "pl_live_…",
	} {
		if got := f.display(in); got != want {
			t.Errorf("display of %q: %q, want %q", in, got, want)
		}
	}
}

func TestIDsSortByTime(t *testing.T) {
	now := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	var ids []string
	for i := range 1000 {
		id := newID(now.Add(time.Duration(i*i) * time.Millisecond))
		if len(id) != 30 || !strings.HasPrefix(id, "key_") {
			t.Fatalf("ID %q", id)
		}
		ids = append(ids, id)
	}
	if !slices.IsSorted(ids) || len(slices.Compact(slices.Clone(ids))) != len(ids) {
		t.Error("not in order, or not unique")
	}
}

func FuzzWellFormed(f *testing.F) {
	form := mustFormat(f, "pl")
	f.Add(form.generate(Live).Reveal())
	f.Add("pl_live_")
	f.Add("pl_test_" + strings.Repeat("0", randomDigits+checksumDigits))
	f.Add("AKIA0123456789ABCDEF")
	f.Add("\x00")
	f.Fuzz(func(t *testing.T, key string) {
		ok := form.wellFormed(key)
		_ = form.display(key)
		if !ok {
			return
		}
		if len(key) == 0 || len(key) > MaxKeyLength || strings.ContainsFunc(key, func(r rune) bool { return r <= ' ' || r > '~' }) {
			t.Fatalf("%q is well formed", key)
		}
		if form.ours(key) {
			body := key[:len(key)-checksumDigits]
			if want := string(appendChecksum([]byte(body), crc32.ChecksumIEEE([]byte(body)))); want != key {
				t.Fatalf("%q is well formed, want %q", key, want)
			}
		}
		if DigestOf(key) != DigestOf(strings.Clone(key)) {
			t.Fatal("the digest is of the address")
		}
	})
}

func TestDigest(t *testing.T) {
	// NIST's example of SHA-256 for "abc" (FIPS 180-2, appendix B.1).
	const abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
	d := DigestOf("abc")
	if d.Hex() != abc || d.String() != "ba7816bf…" {
		t.Errorf("digest of abc: %s, %s", d.Hex(), d)
	}
	if got, err := ParseDigest(strings.ToUpper(abc)); err != nil || !got.Equal(&d) {
		t.Errorf("parsed %v, %v", got, err)
	}
	for _, bad := range []string{"", abc[1:], abc + "0", "zz" + abc[2:]} {
		if _, err := ParseDigest(bad); err == nil {
			t.Errorf("ParseDigest(%q): no error", bad)
		}
	}
	if other := DigestOf("abd"); d.Equal(&other) || d.IsZero() || !(Digest{}).IsZero() {
		t.Error("Equal or IsZero")
	}
}
