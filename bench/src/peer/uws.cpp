// uWebSockets' publish/subscribe behind four functions of C, for peer/uws.rs.

#include <App.h>

#include <sys/socket.h>

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace {

struct Nothing {};

struct Server {
    uWS::Loop *loop;
    uWS::App app;
    // Names of topics by their number, so that publishing formats none.
    std::vector<std::string> topics;
};

void subscribe(uWS::WebSocket<false, true, Nothing> *client, std::string_view message) {
    constexpr std::string_view verb = "sub ";
    if (message.substr(0, verb.size()) != verb) {
        return;
    }
    message.remove_prefix(verb.size());
    while (!message.empty()) {
        size_t end = message.find(',');
        client->subscribe(message.substr(0, end));
        message.remove_prefix(end == std::string_view::npos ? message.size() : end + 1);
    }
}

}  // namespace

extern "C" {

// Listens on loopback; the port is 0 when that failed. The calling thread becomes the server's.
Server *rival_uws_open(size_t topics, int backlog, uint16_t *port) {
    auto *server = new Server{uWS::Loop::get(), uWS::App(), {}};
    for (size_t topic = 0; topic < topics; topic++) {
        server->topics.push_back(std::to_string(topic));
    }
    uWS::App::WebSocketBehavior<Nothing> behavior;
    behavior.message = [](auto *client, std::string_view message, uWS::OpCode) {
        subscribe(client, message);
    };
    *port = 0;
    server->app.ws<Nothing>("/*", std::move(behavior));
    server->app.listen("127.0.0.1", 0, [backlog, port](us_listen_socket_t *listener) {
        if (!listener) {
            return;
        }
        auto *socket = reinterpret_cast<us_socket_t *>(listener);
        // Listening again only changes the backlog, which uSockets fixes to 512.
        auto fd = reinterpret_cast<intptr_t>(us_socket_get_native_handle(0, socket));
        listen(static_cast<int>(fd), backlog);
        *port = static_cast<uint16_t>(us_socket_local_port(0, socket));
    });
    return server;
}

// Serves until it is stopped, then frees the server. On the thread that opened it.
void rival_uws_run(Server *server) {
    server->loop->run();
    delete server;
}

// Publishes `count` updates of `update_bytes` each in one turn of the loop. From any thread.
void rival_uws_publish(Server *server, const uint32_t *topics, const char *updates, size_t count,
                       size_t update_bytes) {
    server->loop->defer([server, update_bytes, topics = std::vector<uint32_t>(topics, topics + count),
                         updates = std::string(updates, count * update_bytes)]() {
        std::string_view rest = updates;
        for (uint32_t topic : topics) {
            server->app.publish(server->topics[topic], rest.substr(0, update_bytes),
                                uWS::OpCode::TEXT);
            rest.remove_prefix(update_bytes);
        }
    });
}

// Closes all sockets, upon which the server ends. From any thread; nothing may be called after it.
void rival_uws_stop(Server *server) {
    server->loop->defer([server]() { server->app.close(); });
}

}
