package ca

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"crypto/x509"
	"encoding/base32"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"log/slog"
	"strings"
)

// What can be wrong with the text of a token, before anybody is asked about it.
var (
	ErrNotToken     = errors.New("not a join token: a token starts with lorad1-; run `lorad token create` on a node of the cluster and paste all it prints")
	ErrTokenDamaged = errors.New("join token is cut short or mistyped (its checksum does not match); copy the whole line again")
	ErrTokenVersion = errors.New("join token is of another version of lorad; run the version of lorad that made it, or make a new token")
)

// A token is lorad1-<pin>-<id>-<secret>-<crc>, in lower-case base32 without padding: 20 bytes of the pin, 6
// characters of id, 16 bytes of secret, and the CRC-32C of all before the last dash (4 bytes).
const (
	tokenPrefix  = "lorad"
	tokenVersion = "1"
	tokenPin     = 20 // 160 bits: finding another key with the same pin costs 2^160
	tokenID      = 6
	tokenSecret  = 16
	maxToken     = 256
)

var (
	tokenText  = base32.NewEncoding("abcdefghijklmnopqrstuvwxyz234567").WithPadding(base32.NoPadding)
	castagnoli = crc32.MakeTable(crc32.Castagnoli)
)

// JoinToken lets a stranger into a cluster. It prints without its secret, whatever the verb: use Reveal where
// the whole is meant to be seen.
type JoinToken struct {
	id     string
	pin    [tokenPin]byte
	secret hidden // tokenSecret bytes
}

// NewJoinToken draws a token for the cluster whose authority has this pin.
func NewJoinToken(pin Pin) JoinToken {
	t := JoinToken{secret: draw(tokenSecret)}
	copy(t.pin[:], pin[:])
	var raw [4]byte
	rand.Read(raw[:])
	t.id = tokenText.EncodeToString(raw[:])[:tokenID]
	return t
}

// ParseJoinToken reads a token's text; spaces around it and capital letters are forgiven. The error is
// ErrNotToken, ErrTokenDamaged or ErrTokenVersion and never shows any of the text.
func ParseJoinToken(text string) (JoinToken, error) {
	text = strings.ToLower(strings.TrimSpace(text))
	rest, ok := strings.CutPrefix(text, tokenPrefix)
	version, _, dash := strings.Cut(rest, "-")
	if !ok || !dash || !digits(version) || len(text) > maxToken {
		return JoinToken{}, ErrNotToken
	}
	if version != tokenVersion {
		return JoinToken{}, ErrTokenVersion
	}
	i := strings.LastIndexByte(text, '-')
	if text[i+1:] != checksum(text[:i]) {
		return JoinToken{}, ErrTokenDamaged
	}
	return parseFields(strings.Split(text[:i], "-")[1:])
}

func digits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// parseFields reads pin, id and secret, whose checksum was right.
func parseFields(f []string) (JoinToken, error) {
	if len(f) != 3 || len(f[1]) != tokenID {
		return JoinToken{}, ErrNotToken
	}
	pin, err1 := tokenText.DecodeString(f[0])
	_, err2 := tokenText.DecodeString(f[1] + "aa") // 6 characters alone are no whole number of bytes
	secret, err3 := tokenText.DecodeString(f[2])
	if errors.Join(err1, err2, err3) != nil || len(pin) != tokenPin || len(secret) != tokenSecret {
		return JoinToken{}, ErrNotToken
	}
	return JoinToken{id: f[1], pin: [tokenPin]byte(pin), secret: hide(secret)}, nil
}

func checksum(s string) string {
	return tokenText.EncodeToString(binary.BigEndian.AppendUint32(nil, crc32.Checksum([]byte(s), castagnoli)))
}

// ID names the token in lists and in the replicated store; it is no secret.
func (t JoinToken) ID() string { return t.id }

// Secret returns the bytes that the joiner sends, once the other end has shown that it has the pinned key.
func (t JoinToken) Secret() []byte { return t.secret() }

// SecretHash returns what the cluster stores of the secret.
func (t JoinToken) SecretHash() []byte { return HashSecret(t.secret()) }

// HashSecret is SHA-256: 128 random bits cannot be guessed from it, so it needs no slow hash.
func HashSecret(secret []byte) []byte {
	h := sha256.Sum256(secret)
	return h[:]
}

// PinnedBy says whether p is what the token pins.
func (t JoinToken) PinnedBy(p Pin) bool {
	return subtle.ConstantTimeCompare(p[:tokenPin], t.pin[:]) == 1
}

// Pins says whether c has the public key that the token pins.
func (t JoinToken) Pins(c *x509.Certificate) bool {
	return t.PinnedBy(PinOf(c))
}

// Reveal returns the whole token, secret included: to print it for the person who asked for it.
func (t JoinToken) Reveal() string {
	s := strings.Join([]string{
		tokenPrefix + tokenVersion, tokenText.EncodeToString(t.pin[:]), t.id, tokenText.EncodeToString(t.secret()),
	}, "-")
	return s + "-" + checksum(s)
}

func (t JoinToken) String() string               { return "join-token(" + t.id + ", secret hidden)" }
func (t JoinToken) LogValue() slog.Value         { return slog.StringValue(t.String()) }
func (t JoinToken) Format(f fmt.State, _ rune)   { fmt.Fprint(f, t.String()) }
func (t JoinToken) MarshalText() ([]byte, error) { return []byte(t.String()), nil }
