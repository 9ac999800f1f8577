package coordinator

import (
	"bytes"
	"io"
	"log"
	"log/slog"

	"github.com/hashicorp/go-hclog"
)

// lines turns the log lines of Raft and gossip into records. Both cry wolf whenever a peer is away, and what that
// means is said by the coordinator itself: their warnings are Info here, the rest Debug.
type lines struct {
	log *slog.Logger
}

func (l lines) Write(p []byte) (int, error) {
	text := string(bytes.TrimSpace(p))
	if bytes.Contains(p, []byte("[ERR")) || bytes.Contains(p, []byte("[WARN")) {
		l.log.Info(text)
	} else {
		l.log.Debug(text)
	}
	return len(p), nil
}

func raftLog(log *slog.Logger) hclog.Logger {
	return hclog.New(&hclog.LoggerOptions{Output: lines{log.With("part", "raft")}, Level: hclog.Debug, DisableTime: true})
}

func gossipLog(l *slog.Logger) *log.Logger {
	return log.New(io.Writer(lines{l.With("part", "gossip")}), "", 0)
}
