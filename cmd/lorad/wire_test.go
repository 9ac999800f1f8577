package main

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"lorad/ca"
	"lorad/proto"
)

// wiretap passes on what comes to its address, and keeps all of it, both ways.
type wiretap struct {
	ln net.Listener
	to string // set before the first connection

	mu  sync.Mutex
	buf bytes.Buffer
}

// tapped puts a wiretap before a free port; a node that binds that port advertises the tap.
func tapped(t *testing.T) (w *wiretap, bind string) {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free, err := steadyAddr("127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	w = &wiretap{ln: ln, to: free}
	go w.accept()
	t.Cleanup(func() { ln.Close() })
	return w, w.to
}

func (w *wiretap) accept() {
	for {
		in, err := w.ln.Accept()
		if err != nil {
			return
		}
		go w.relay(in)
	}
}

func (w *wiretap) relay(in net.Conn) {
	defer in.Close()
	out, err := net.Dial("tcp", w.to)
	if err != nil {
		return
	}
	defer out.Close()
	go func() { io.Copy(io.MultiWriter(in, w), out); in.Close() }()
	io.Copy(io.MultiWriter(out, w), in)
}

func (w *wiretap) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.buf.Write(b)
}

func (w *wiretap) heard() []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	return bytes.Clone(w.buf.Bytes())
}

// tappedNode starts a node in this process that the others reach through a wiretap only.
func tappedNode(t *testing.T, name, join, token string) (*wiretap, string) {
	t.Helper()
	w, bind := tapped(t)
	dir := filepath.Join(t.TempDir(), name)
	d, err := startDaemon(t.Context(), daemonConfig{
		Dir: dir, Name: name, Bind: bind, Advertise: w.ln.Addr().String(), Threads: 1, Bootstrap: join == "", Join: join, Token: token,
		Log: slog.New(slog.DiscardHandler),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return w, dir
}

const planted = "the plaintiff of Zanzibar owes nobody an answer"

// TestNothingIsOnTheWireInClear: all that two nodes say to each other during a join and ten steps, copying the inputs and
// the state included, goes through wiretaps; nothing that was planted is on the tapes.
func TestNothingIsOnTheWireInClear(t *testing.T) {
	first, dirA := tappedNode(t, "alpha", "", "")
	a, err := dial(t.Context(), dirA)
	if err != nil {
		t.Fatal(err)
	}
	defer a.Close()
	tok, err := a.CreateToken(t.Context(), &proto.CreateTokenRequest{Role: "voter"})
	if err != nil {
		t.Fatal(err)
	}
	second, dirB := tappedNode(t, "beta", tok.Addr, tok.Token)
	r := plantedRun(t, a)
	if r.Step < 10 || len(r.Lease.Members) != 2 {
		t.Fatalf("%d steps with %v", r.Step, r.Lease.Members)
	}
	tape := append(first.heard(), second.heard()...)
	secrets := secretsOf(t, tok.Token, r.Spec.OutputDir, dirA, dirB)
	addGradients(t, secrets, filepath.Dir(r.Spec.OutputDir), firstRecord(t, a, r.Spec.Run))
	for name, secret := range secrets {
		if len(secret) < 8 {
			t.Fatalf("%s: only %d bytes to look for", name, len(secret))
		}
		if bytes.Contains(tape, secret) {
			t.Errorf("%s is on the wire in clear: %.60q", name, secret)
		}
	}
	// The tapes are those of the whole: every protocol of nodes and the enrolment were opened on them.
	for _, protocol := range []string{"lorad-enrol/1", "lorad-raft/1", "lorad-gossip/1", "lorad-reduce/1", "\x02h2"} {
		if !bytes.Contains(tape, []byte(protocol)) {
			t.Errorf("%q was not opened on the wire: the tape is not of everything", protocol)
		}
	}
	if want := 10 * 4 * parameters(t, r.Spec.OutputDir); len(tape) < want {
		t.Errorf("%d bytes on the tape: less than ten gradients (%d) take", len(tape), want)
	}
	t.Logf("%d bytes on the tapes, without any of %d values", len(tape), len(secrets))
}

// plantedRun trains the tiny job with the planted text in its data, on both nodes.
func plantedRun(t *testing.T, c *client) *proto.Run {
	t.Helper()
	dir, req := lay(t, tiny{Steps: 12})
	data, err := os.ReadFile(filepath.Join(dir, "data.jsonl"))
	if err != nil {
		t.Fatal(err)
	}
	line := fmt.Sprintf(`{"prompt": "Question: who?\nAnswer:", "completion": " %s."}`+"\n", planted)
	if err := os.WriteFile(filepath.Join(dir, "data.jsonl"), append(data, strings.Repeat(line, 3)...), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 4*time.Minute)
	defer cancel()
	for { // both are to be there from the first step
		reply, err := c.Cluster(ctx, &proto.ClusterRequest{})
		if err != nil {
			t.Fatal(err)
		}
		if len(reply.Nodes) == 2 && reply.Nodes[0].Alive && reply.Nodes[1].Alive {
			break
		}
		time.Sleep(20 * time.Millisecond)
	}
	reply, err := c.Submit(ctx, req)
	if err != nil {
		t.Fatal(err)
	}
	var d disturb
	r, err := c.follow(ctx, reply.Run.Spec.Run, 0, &d)
	if err != nil || r.Phase != proto.Phase_DONE {
		t.Fatalf("run ended %v, %v", r, err)
	}
	return r
}

// secretsOf is everything that must not be on the wire, by what it is.
func secretsOf(t *testing.T, token, output string, dirs ...string) map[string][]byte {
	t.Helper()
	tok, err := ca.ParseJoinToken(token)
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(token, "-")
	s := map[string][]byte{
		"the token": []byte(token), "the token's secret, as text": []byte(parts[3]), "the token's secret": tok.Secret(),
		"the token's hash": tok.SecretHash(), "the example's text": []byte(planted), "part of the example's text": []byte("Zanzibar"),
		"the job": []byte("global_batch_size"), "an all-reduce frame": []byte("LRAR\x02\x00\x00\x00"), "the model's configuration": []byte("num_hidden_layers"),
		"a state": []byte("lorad-state"), "a safetensors file": []byte(`"dtype":"`),
	}
	for _, dir := range dirs {
		addKeys(t, s, dir)
	}
	weights, err := os.ReadFile(filepath.Join(output, "model.safetensors"))
	if err != nil {
		t.Fatal(err)
	}
	state, err := os.ReadFile(filepath.Join(output, "checkpoint-12", "state.bin"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range 200 { // wherever a copy of them were cut into frames, some of these would be whole
		at := len(state) / 3 * i / 200
		s[fmt.Sprintf("parameters at %d", at)] = state[36+at : 36+at+16]
		at = len(weights) / 2 * i / 200
		s[fmt.Sprintf("weights at %d", at)] = weights[len(weights)/2+at : len(weights)/2+at+16]
	}
	return s
}

// addKeys adds the keys that a node has on its disk, in the forms in which they are kept and sent.
func addKeys(t *testing.T, s map[string][]byte, dir string) {
	t.Helper()
	secret, err := os.ReadFile(filepath.Join(dir, "cluster.secret"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(dir, "identity.pem"))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(text)
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	d, err := key.(*ecdsa.PrivateKey).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	var record struct {
		GossipKey []byte `json:"gossip_key"`
	}
	text, err = os.ReadFile(filepath.Join(dir, "cluster.json"))
	if err == nil {
		err = json.Unmarshal(text, &record)
	}
	if err != nil {
		t.Fatal(err)
	}
	for name, b := range map[string][]byte{"node key": d, "gossip key": record.GossipKey, "cluster secret": bytes.TrimSpace(secret)} {
		s[name+" of "+dir] = b
		s[name+" in hex of "+dir] = []byte(hex.EncodeToString(b))
		s[name+" in base64 of "+dir] = []byte(base64.StdEncoding.EncodeToString(b))
	}
}

// parameters counts what was trained: the tiny job trains everything.
func parameters(t *testing.T, output string) int {
	t.Helper()
	st, err := os.Stat(filepath.Join(output, "checkpoint-12", "state.bin"))
	if err != nil {
		t.Fatal(err)
	}
	return int(st.Size()-36) / 12
}
