package coordinator

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"lorad/ca"
	"lorad/proto"
	"lorad/transport"
)

// browser is an HTTP client as others have them: it offers HTTP/2 too, and here trusts whoever answers.
func (b *box) browser() *http.Client {
	tr := &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h2", "http/1.1"}}}
	b.t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: 10 * time.Second}
}

// get asks for a path and gives the status and the body.
func (b *box) get(method, path, token string, header map[string]string) (int, string) {
	b.t.Helper()
	req, err := http.NewRequest(method, "https://"+b.mux.Advertise()+path, nil)
	if err != nil {
		b.t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", transport.Bearer+token)
	}
	for k, v := range header {
		req.Header.Set(k, v)
		if k == "Host" {
			req.Host = v
		}
	}
	resp, err := b.browser().Do(req)
	if err != nil {
		b.t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		b.t.Fatal(err)
	}
	return resp.StatusCode, string(body)
}

// TestStrangersTryEveryRoute: every HTTP route there is, with every sort of token and every method.
func TestStrangersTryEveryRoute(t *testing.T) {
	t.Parallel()
	b := first(t)
	if err := b.Ready(b.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	run := b.submit("job: 6").Run.Spec.Run
	texts := map[string]string{"none": "", "nonsense": "lorad1-x", "cut short": "lorad1-"}
	for name, tok := range b.tokens() {
		texts[name] = tok.Reveal()
	}
	for _, r := range routes {
		path := strings.Replace(r.pattern, "{run}", run, 1)
		for name, token := range texts {
			code, body := b.get("GET", path, token, nil)
			open := r.method == "" || (name == "viewer" || name == "operator") && allowed(ca.Role(name), r.method, false)
			if open != (code == http.StatusOK) || !open && code != http.StatusUnauthorized && code != http.StatusForbidden {
				t.Errorf("GET %s with token %q: %d %s", path, name, code, body)
			}
			if open && !json.Valid([]byte(body)) {
				t.Errorf("GET %s: not JSON: %s", path, body)
			}
		}
		for _, method := range []string{"POST", "PUT", "DELETE", "PATCH"} {
			if code, _ := b.get(method, path, texts["operator"], nil); code != http.StatusMethodNotAllowed {
				t.Errorf("%s %s: %d", method, path, code)
			}
		}
	}
	viewer := texts["viewer"]
	for _, path := range []string{"/", "/api/v1/tokens", "/api/v1/runs/../../etc/passwd", "/debug/pprof/", "/lorad.v1.Control/Submit"} {
		if code, _ := b.get("GET", path, viewer, nil); code != http.StatusNotFound {
			t.Errorf("GET %s: %d", path, code)
		}
	}
}

// TestForeignPagesAreRefused: a page whose name was made to point here, and a page elsewhere that posts here.
func TestForeignPagesAreRefused(t *testing.T) {
	t.Parallel()
	b := first(t)
	for host, want := range map[string]int{
		"evil.example": http.StatusMisdirectedRequest, "evil.example:7840": http.StatusMisdirectedRequest, "127.0.0.1.evil.example": http.StatusMisdirectedRequest,
		"localhost": http.StatusOK, "[::1]:7840": http.StatusOK, "10.1.2.3:7840": http.StatusOK, ca.ServerName(b.creds.ClusterID): http.StatusOK,
	} {
		if code, body := b.get("GET", "/healthz", "", map[string]string{"Host": host}); code != want {
			t.Errorf("Host %s: %d %s", host, code, body)
		}
	}
	for _, h := range []map[string]string{{"Origin": "https://evil.example"}, {"Sec-Fetch-Site": "cross-site"}} {
		if code, _ := b.get("POST", "/healthz", "", h); code != http.StatusForbidden {
			t.Errorf("POST with %v: %d", h, code)
		}
	}
	code, body := b.get("GET", "/api/v1/nodes", "", nil)
	if code != http.StatusUnauthorized || strings.Contains(body, b.creds.ClusterID) || strings.Contains(body, b.id) {
		t.Errorf("without a token: %d %s", code, body)
	}
}

// TestSlowHTTPEnds: a header that never ends is hung up on, however slowly it comes.
func TestSlowHTTPEnds(t *testing.T) {
	t.Parallel()
	b := first(t)
	b.web.ReadHeaderTimeout = 500 * time.Millisecond
	conn, err := (&tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}}}).
		DialContext(context.Background(), "tcp", b.mux.Advertise())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	began := time.Now()
	go func() {
		io.WriteString(conn, "GET /healthz HTTP/1.1\r\nHost: localhost\r\n")
		for {
			if _, err := io.WriteString(conn, "X: y\r\n"); err != nil {
				return
			}
			time.Sleep(100 * time.Millisecond)
		}
	}()
	conn.SetReadDeadline(began.Add(enough))
	_, err = io.Copy(io.Discard, conn)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Errorf("still open after %v", time.Since(began))
	}
}

// TestPeopleGetWhatTheirTokenSays: a viewer sees, an operator also gives tokens and submits, but neither of them what could
// make him more; and a revoked token ends at the next call.
func TestPeopleGetWhatTheirTokenSays(t *testing.T) {
	t.Parallel()
	b := first(t)
	if err := b.Ready(b.ctx(enough)); err != nil {
		t.Fatal(err)
	}
	tokens := b.tokens()
	call := func(name string) proto.ControlClient {
		conn, err := transport.GRPCPeople(b.ctx(enough), b.mux.Advertise(), tokens[name])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		return proto.NewControlClient(conn)
	}
	viewer, operator := call("viewer"), call("operator")
	if _, err := viewer.Cluster(b.ctx(enough), &proto.ClusterRequest{}); err != nil {
		t.Error(err)
	}
	for role, want := range map[string]codes.Code{
		"worker": codes.OK, "viewer": codes.OK, "voter": codes.PermissionDenied, "witness": codes.PermissionDenied, "operator": codes.PermissionDenied,
	} {
		if _, err := operator.CreateToken(b.ctx(enough), &proto.CreateTokenRequest{Role: role}); status.Code(err) != want {
			t.Errorf("an operator makes a %s's token: %v", role, err)
		}
		if _, err := viewer.CreateToken(b.ctx(enough), &proto.CreateTokenRequest{Role: role}); status.Code(err) != codes.PermissionDenied {
			t.Errorf("a viewer makes a %s's token: %v", role, err)
		}
	}
	// The fake Prepare of these tests names the output after the folder it is given.
	b.cfg.Workspace = "/workspace"
	reply, err := operator.Submit(b.ctx(enough), &proto.SubmitRequest{JobYaml: "job: 7", Dir: "/etc"})
	if err != nil || reply.Run.Spec.OutputDir != "/workspace" {
		t.Errorf("a job from elsewhere goes to %q: %v", reply.GetRun().GetSpec().GetOutputDir(), err)
	}
	list, err := operator.Tokens(b.ctx(enough), &proto.TokensRequest{})
	if err != nil || len(list.Tokens) < 4 {
		t.Fatalf("tokens: %v, %v", list, err)
	}
	for _, tok := range list.Tokens {
		if len(tok.SecretSha256) > 0 || len(tok.UsedBy) > 0 {
			t.Errorf("the list shows what belongs to the secret of %s", tok.Id)
		}
	}
	if _, err := operator.RemoveToken(b.ctx(enough), &proto.RemoveTokenRequest{Id: tokens["viewer"].ID()}); err != nil {
		t.Fatal(err)
	}
	if _, err := viewer.Cluster(b.ctx(enough), &proto.ClusterRequest{}); status.Code(err) != codes.Unauthenticated {
		t.Errorf("with a revoked token: %v", err)
	}
}
