// Exceptions through several frames and units, streams, static construction and destruction, thread_local, RTTI.
#include "cxx.hpp"

#include <iostream>
#include <map>
#include <sstream>
#include <thread>
#include <vector>

static Noisy global("global");
thread_local Counter per_thread;

static int thrower(int depth)
{
    Noisy local("frame");
    if (depth == 0)
        throw Failure("deep", 42);
    return thrower(depth - 1) + 1;
}

int main()
{
    try {
        thrower(2);
    } catch (const Failure &failure) {
        std::cout << "caught " << failure.what() << ' ' << failure.code << std::endl;
    }
    try {
        other_unit(std::vector<int>{1, 2, 3}, 7);
    } catch (const std::out_of_range &) {
        std::cout << "caught out_of_range" << std::endl;
    }
    try {
        rethrow();
    } catch (const std::exception &error) {
        std::cout << "caught " << error.what() << std::endl;
    }
    std::thread thread([] {
        per_thread.add(5);
        per_thread.add(6);
        std::cout << "thread " << per_thread.total << std::endl;
    });
    thread.join();
    per_thread.add(1);
    std::map<std::string, double> map{{"pi", 3.14159}, {"e", 2.71828}};
    std::ostringstream text;
    for (const auto &[name, value] : map)
        text << name << '=' << value << ' ';
    std::cout << text.str() << per_thread.total << ' ' << shape(3)->area() << ' ' << shape(-2)->area() << std::endl;
    return static_cast<int>(map.size()) + shared_inline();
}
