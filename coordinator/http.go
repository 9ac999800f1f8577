package coordinator

import (
	"context"
	"log"
	"net"
	"net/http"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/protojson"
	pb "google.golang.org/protobuf/proto"

	"lorad/ca"
	"lorad/proto"
	"lorad/transport"
)

// Bounds of an HTTP connection; how many there are is the door's business.
const (
	httpHeaderTimeout = 5 * time.Second
	httpReadTimeout   = 10 * time.Second
	httpWriteTimeout  = 60 * time.Second
	httpIdleTimeout   = 60 * time.Second
	httpMaxHeader     = 8 << 10
)

// A route is an RPC that HTTP clients may call with GET, or, without a method, what everybody may know.
type route struct {
	pattern string
	method  string // the RPC whose row in the table says who may
	answer  func(ctx context.Context, c control, r *http.Request) (pb.Message, error)
}

// routes is the whole HTTP API: read only, the RPC's reply as JSON (protojson, field names as in lorad.proto).
var routes = []route{
	{"/healthz", "", func(context.Context, control, *http.Request) (pb.Message, error) { return &proto.PingReply{}, nil }},
	{"/api/v1/nodes", proto.Control_Cluster_FullMethodName, func(ctx context.Context, c control, _ *http.Request) (pb.Message, error) {
		return c.Cluster(ctx, &proto.ClusterRequest{Gpus: true})
	}},
	{"/api/v1/runs", proto.Control_Runs_FullMethodName, func(ctx context.Context, c control, _ *http.Request) (pb.Message, error) {
		return c.Runs(ctx, &proto.RunsRequest{})
	}},
	{"/api/v1/runs/{run}", proto.Control_GetRun_FullMethodName, func(ctx context.Context, c control, r *http.Request) (pb.Message, error) {
		return c.GetRun(ctx, &proto.GetRunRequest{Run: r.PathValue("run")})
	}},
}

// connKey is where a request's context has its connection.
type connKey struct{}

// webServer answers HTTP/1.1 on the one port.
func (c *Coordinator) webServer() *http.Server {
	mux := http.NewServeMux()
	for _, r := range routes {
		mux.HandleFunc("GET "+r.pattern, c.handle(r))
	}
	return &http.Server{
		Handler:           c.sameSite(http.NewCrossOriginProtection().Handler(mux)),
		ReadHeaderTimeout: httpHeaderTimeout, ReadTimeout: httpReadTimeout, WriteTimeout: httpWriteTimeout, IdleTimeout: httpIdleTimeout,
		MaxHeaderBytes: httpMaxHeader, ErrorLog: log.New(lines{c.log.With("part", "http")}, "", 0),
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			return context.WithValue(ctx, connKey{}, conn)
		},
	}
}

// sameSite refuses requests for a name that is not ours: a page of somebody else's whose name was made to point here
// (DNS rebinding). An IP address cannot be made to point anywhere.
func (c *Coordinator) sameSite(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Cache-Control", "no-store")
		h.Set("Content-Security-Policy", "default-src 'none'; frame-ancestors 'none'")
		if !c.ours(r.Host) {
			http.Error(w, "no such host here: use the node's IP address, or the name that it advertises", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// ours reports whether a Host header names this node.
func (c *Coordinator) ours(host string) bool {
	if h, _, err := net.SplitHostPort(host); err == nil {
		host = h
	}
	host = strings.ToLower(strings.TrimSuffix(strings.Trim(host, "[]"), "."))
	mine, _, _ := net.SplitHostPort(c.cfg.Mux.Advertise())
	return net.ParseIP(host) != nil || host == "localhost" || host == ca.ServerName(c.creds.ClusterID) || host == strings.ToLower(mine)
}

// handle answers one route for those whom the table lets call its RPC.
func (c *Coordinator) handle(r route) http.HandlerFunc {
	return func(w http.ResponseWriter, req *http.Request) {
		ctx := req.Context()
		if r.method != "" {
			role, err := c.admit(strings.TrimPrefix(req.Header.Get("Authorization"), transport.Bearer), r.method, func(who string) error {
				if conn, ok := ctx.Value(connKey{}).(*transport.Conn); ok {
					return conn.Vouch(who)
				}
				return nil
			})
			if err != nil {
				refuse(w, err)
				return
			}
			ctx = context.WithValue(ctx, roleKey{}, role)
		}
		reply, err := r.answer(ctx, control{Coordinator: c}, req)
		if err != nil {
			refuse(w, coded(err))
			return
		}
		b, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(reply)
		if err != nil {
			refuse(w, err)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Write(append(b, '\n'))
	}
}

// refuse answers with an error's sentence and the HTTP status that is nearest to its code.
func refuse(w http.ResponseWriter, err error) {
	code := http.StatusInternalServerError
	switch status.Code(err) {
	case codes.Unauthenticated:
		w.Header().Set("WWW-Authenticate", `Bearer realm="lorad"`)
		code = http.StatusUnauthorized
	case codes.PermissionDenied:
		code = http.StatusForbidden
	case codes.NotFound:
		code = http.StatusNotFound
	case codes.InvalidArgument:
		code = http.StatusBadRequest
	case codes.ResourceExhausted:
		code = http.StatusTooManyRequests
	case codes.Unavailable:
		code = http.StatusServiceUnavailable
	}
	http.Error(w, status.Convert(err).Message(), code)
}
